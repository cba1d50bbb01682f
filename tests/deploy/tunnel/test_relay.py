"""Which calls the relay lets through, and whose."""

import asyncio
import ssl
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.deploy.tunnel.loopback import Relay, Tunnel, listeners, make_certificates
from tests.fake_ollama import FakeOllama, whole
from tests.programs import free_ports


@pytest.fixture
async def ollama(relay: Relay) -> AsyncIterator[FakeOllama]:
    """The fake in place of the tunnel's end, which is all that nginx sees of a tunnel."""
    fake = FakeOllama()
    await fake.start(relay.tunnel_port)
    yield fake
    await fake.stop()


CALLS = [
    ("GET", "/api/version"),
    ("GET", "/api/tags"),
    ("POST", "/api/show"),
    ("POST", "/api/chat"),
    ("GET", "/api/ps"),
]
V1 = ("chat/completions", "completions", "embeddings", "responses", "messages")
BODY = {
    "model": "llama3.1:70b",
    "messages": [{"role": "user", "content": "hi"}],
    "stream": False,
}


def client(
    relay: Relay, token: str | None = None, certificate: Path | None = None
) -> httpx.AsyncClient:
    """Return a client that presents `token` and `certificate`, a path without its suffix."""
    context = ssl.create_default_context(cafile=relay.made / "ca.crt")
    if certificate:
        context.load_cert_chain(certificate.with_suffix(".crt"), certificate.with_suffix(".key"))
    headers = {} if token is None else {"X-Tunnel-Token": token}
    return httpx.AsyncClient(base_url=relay.url, verify=context, headers=headers, trust_env=False)


def known(relay: Relay) -> httpx.AsyncClient:
    return client(relay, relay.token, relay.made / "client/client")


async def test_what_the_functions_call_reaches_ollama(relay: Relay, ollama: FakeOllama) -> None:
    ollama.check_host = True
    async with known(relay) as http:
        for method, path in CALLS:
            answer = await http.request(method, path, json=BODY if method == "POST" else None)
            assert answer.status_code == 200, answer.text
    assert [(request.method, request.path) for request in ollama.requests] == CALLS


async def test_the_compatible_paths_reach_ollama(relay: Relay, ollama: FakeOllama) -> None:
    async with known(relay) as http:
        for path in V1:
            ollama.reply(whole(200, "application/json", b"{}"), path=f"/v1/{path}")
            assert (await http.post(f"/v1/{path}", json=BODY)).json() == {}
    assert [request.path for request in ollama.requests] == [f"/v1/{path}" for path in V1]


async def test_ollama_gets_none_of_the_other_headers(relay: Relay, ollama: FakeOllama) -> None:
    headers = {
        "Authorization": "Bearer x",
        "Cookie": "a=b",
        "Host": "evil.example.com",
        "Origin": "https://evil.example.com",
        "X-Request-ID": "7",
    }
    async with known(relay) as http:
        answer = await http.post("/api/chat", json=BODY, headers=headers)
    assert answer.status_code == 200
    got = {name.lower(): value for name, value in ollama.requests[-1].headers}
    assert got.keys() == {"host", "connection", "content-type", "content-length", "x-request-id"}
    assert (got["host"], got["x-request-id"]) == ("localhost", "7")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("DELETE", "/api/delete", 404),
        ("POST", "/api/pull", 404),
        ("POST", "/api/generate", 404),
        ("GET", "/", 404),
        ("GET", "/v1/models", 404),
        ("POST", "/v1/images/generations", 404),
        ("POST", "/v1/chat/completions/", 404),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/api/ps", 405),
        ("POST", "/api/chat/", 404),
        ("POST", "/api/Chat", 404),
        ("POST", "/api/chat/../delete", 404),
        ("POST", "/api/chat%2f..%2fdelete", 404),
        ("GET", "/api/chat", 405),
        ("DELETE", "/api/chat", 405),
        ("POST", "/api/tags", 405),
        ("HEAD", "/api/version", 405),
        ("GET", "/api/show", 405),
    ],
)
async def test_other_paths_and_methods_end_at_the_relay(
    relay: Relay, ollama: FakeOllama, method: str, path: str, status: int
) -> None:
    async with known(relay) as http:
        url = http.base_url.copy_with(raw_path=path.encode())
        answer = await http.request(method, url)
    assert answer.status_code == status
    assert not ollama.requests


@pytest.mark.parametrize("path", ["/api/tags", "/api/pull"])
@pytest.mark.parametrize(
    ("token", "certificate", "says"),
    [
        (None, "client/client", "X-Tunnel-Token"),
        ("", "client/client", "X-Tunnel-Token"),
        ("default", "client/client", "X-Tunnel-Token"),
        ("{token}", None, "wants a client certificate"),
        ("{token}", "relay/server", "refuses this client certificate"),
        ("{token}", "other/client/client", "refuses this client certificate"),
    ],
)
async def test_strangers_end_at_the_relay(
    relay: Relay,
    ollama: FakeOllama,
    path: str,
    token: str | None,
    certificate: str | None,
    says: str,
) -> None:
    if certificate == "other/client/client":
        make_certificates("localhost", relay.made / "other")
    pair = relay.made / certificate if certificate else None
    shown = token and token.format(token=relay.token)
    async with client(relay, shown, pair) as http:
        answer = await http.get(path)
    assert answer.status_code == 403
    assert says in answer.json()["error"]
    assert not ollama.requests


async def test_plain_http_and_a_stranger_get_different_errors(relay: Relay) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"http://localhost:{relay.https_port}/api/version")
    assert answer.status_code == 403
    assert "OLLAMA_BASE_URL must begin with https:" in answer.json()["error"]


async def test_the_token_is_in_no_log_and_no_command_line(
    relay: Relay, tunnel: Tunnel, fake: FakeOllama
) -> None:
    async with known(relay) as http:
        await http.get("/api/version")
        await http.get("/api/pull")
        await fake.stop()
        await http.get("/api/version")
    logs = {path.name: path.read_text("utf-8") for path in relay.folder.glob("*.log")}
    assert logs.keys() == {"access.log", "error.log", "sshd.log"}
    assert "/api/pull" in logs["access.log"]
    assert "while reading response header from upstream" in logs["error.log"]
    assert not [name for name, text in logs.items() if relay.token in text]
    for process in psutil.Process().children(recursive=True):
        assert relay.token not in " ".join(process.cmdline())


async def ssh(relay: Relay, *arguments: str, tunnel_port: int | None = None) -> str:
    """Call the relay as the Ollama machine does, for another purpose; return why it failed."""
    command: list[str | Path] = ["ssh", "-F", relay.ssh_config(9, tunnel_port), "relay", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE
    )
    async with asyncio.timeout(30):
        _, error = await process.communicate()
    assert process.returncode == 255
    return error.decode()


async def test_the_tunnels_key_listens_nowhere_else(relay: Relay) -> None:
    (port,) = free_ports(1)
    assert "remote port forwarding failed" in await ssh(relay, tunnel_port=port)
    assert not listeners(port)


async def test_the_tunnels_key_leads_to_nothing_behind_the_relay(relay: Relay) -> None:
    assert "administratively prohibited" in await ssh(relay, "-W", f"127.0.0.1:{relay.https_port}")


@pytest.mark.parametrize(
    ("kind", "command"), [("default", "true"), ("default", ""), ("subsystem", "sftp")]
)
async def test_the_tunnels_key_opens_no_session(relay: Relay, kind: str, command: str) -> None:
    options = ("-o", f"SessionType={kind}", "-o", "ClearAllForwardings=yes")
    assert "open failed" in await ssh(relay, *options, *command.split())
