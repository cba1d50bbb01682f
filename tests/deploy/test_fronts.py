"""Caddy and nginx in front of the gateway, with the configurations that operators copy."""

import asyncio
import json
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from core.settings.networks import Networks
from core.settings.schema import Settings
from tests.compatible import KEY, KEYS
from tests.conftest import Serve
from tests.fake_ollama import FakeOllama, never_answers, stalls_after
from tests.programs import ROOT, free_ports, program, started

Run = Callable[..., AbstractContextManager["Front"]]
"""(folder, address of the gateway, changes ...) -> a front."""
LOCAL = Networks("127.0.0.1/32")
CHAT = {"message": "안녕", "model": "smollm2:135m"}
NGINX = """
daemon off;
pid nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path files;
    proxy_temp_path files;
    fastcgi_temp_path files;
    scgi_temp_path files;
    uwsgi_temp_path files;
    include front.conf;
}
"""
CADDY = """
	admin off
	auto_https disable_redirects
	storage file_system ./caddy
	skip_install_trust
"""


@dataclass(frozen=True)
class Front:
    """A front that runs on loopback."""

    port: int
    authority: Path

    @property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.authority)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def client(self, address: str = "127.0.0.1", *, with_key: bool = True) -> httpx.AsyncClient:
        """Return a client that calls from `address`; through a front, no client looks local."""
        transport = httpx.AsyncHTTPTransport(verify=self.context, local_address=address)
        headers = {"X-API-Key": KEY} if with_key else {}
        return httpx.AsyncClient(
            base_url=self.url, transport=transport, timeout=30, headers=headers
        )


def edited(path: str, *changes: tuple[str, object]) -> str:
    """Return a file of deploy/ with `changes` as an operator makes them."""
    text = (ROOT / "deploy" / path).read_text("utf-8")
    for old, new in changes:
        assert old in text, f"{path} has no {old}"
        text = text.replace(old, str(new))
    return text


@contextmanager
def caddy(folder: Path, gateway: str, *changes: tuple[str, object]) -> Iterator[Front]:
    command = program("caddy", "apt install caddy")
    (port,) = free_ports(1)
    text = edited(
        "caddy/Caddyfile",
        ("{\n\t# A client that", f"{{\n{CADDY}\n\t# A client that"),
        ("\napi.example.com {", f"\nhttps://localhost:{port} {{\n\tbind 127.0.0.1\n\ttls internal"),
        ("127.0.0.1:5000", gateway),
        *changes,
    )
    (folder / "Caddyfile").write_text(text, "utf-8")
    authority = folder / "caddy/pki/authorities/local/root.crt"
    arguments = [command, "run", "--config", "Caddyfile", "--adapter", "caddyfile"]
    with started(arguments, {"HOME": str(folder)}, cwd=folder):
        yield listening(Front(port, authority))


@contextmanager
def nginx(folder: Path, gateway: str, *changes: tuple[str, object]) -> Iterator[Front]:
    command = program("nginx", "apt install nginx")
    port, plain_port = free_ports(2)
    made = ("-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-subj", "/CN=localhost")
    subprocess.run(
        [
            *(program("openssl", "apt install openssl"), "req", "-x509", "-nodes"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "1", *made),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    text = edited(
        "nginx/ollama-web-api.conf",
        ("listen 443 ", f"listen 127.0.0.1:{port} "),
        ("listen [::]:443 ", f"listen [::1]:{port} "),
        ("listen 80;", f"listen 127.0.0.1:{plain_port};"),
        ("listen [::]:80;", f"listen [::1]:{plain_port};"),
        ("api.example.com;", "localhost;"),
        ("/etc/letsencrypt/live/api.example.com/fullchain.pem", "cert.pem"),
        ("/etc/letsencrypt/live/api.example.com/privkey.pem", "key.pem"),
        ("127.0.0.1:5000", gateway),
        *changes,
    )
    (folder / "front.conf").write_text(text, "utf-8")
    (folder / "nginx.conf").write_text(NGINX, "utf-8")
    arguments: list[str | Path] = [command, "-e", "error.log", "-p", folder, "-c", "nginx.conf"]
    with started(arguments, {}):
        yield listening(Front(port, folder / "cert.pem"))


def listening(front: Front) -> Front:
    """Return `front` once it has its certificate and presents it."""
    for attempt in range(600):
        try:
            with (
                socket.create_connection(("127.0.0.1", front.port), 5) as sock,
                front.context.wrap_socket(sock, server_hostname="localhost"),
            ):
                return front
        except OSError:
            assert attempt < 599
            time.sleep(0.1)
    raise AssertionError


@pytest.fixture(params=[caddy, nginx])
def run(request: pytest.FixtureRequest) -> Run:
    run: Run = request.param
    return run


@pytest.fixture
async def gateway(serve: Serve) -> str:
    """The address of a gateway as the fronts' comments set it up."""
    networks = {"trusted_proxies": Networks("127.0.0.1/32"), "anonymous_clients": LOCAL}
    url = await serve(api_keys=KEYS, **networks)
    return httpx.URL(url).netloc.decode()


async def test_a_token_is_handed_on_at_once_and_a_client_that_leaves_stops_its_model(
    run: Run, tmp_path: Path, gateway: str, fake: FakeOllama
) -> None:
    fake.default = stalls_after(1)
    with run(tmp_path, gateway) as front:
        async with front.client() as client, asyncio.timeout(30):
            async with client.stream("POST", "/api/chat/stream", json=CHAT) as answer:
                assert "strict-transport-security" in answer.headers
                assert json.loads(await anext(answer.aiter_lines()))["response"] == " 0"
            request = await fake.wait_for(1)
            await request.disconnected.wait()


async def test_the_gateway_learns_the_address_of_the_client_and_not_what_it_says(
    run: Run, tmp_path: Path, gateway: str
) -> None:
    headers = {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1"}
    with run(tmp_path, gateway) as front:
        async with front.client() as known, front.client("127.0.0.2", with_key=False) as stranger:
            for sent in ({}, headers):
                assert (await known.get("/api/models", headers=sent)).status_code == 200
                assert (await stranger.get("/api/models", headers=sent)).status_code == 401


async def test_nginx_serves_clients_that_use_ipv6(tmp_path: Path, gateway: str) -> None:
    with nginx(tmp_path, gateway) as front:
        url = f"https://[::1]:{front.port}/api/models"
        async with front.client("::1") as known, front.client("::1", with_key=False) as stranger:
            for client, status in ((known, 200), (stranger, 401)):
                answer = await client.get(
                    url, headers={"Host": "localhost"}, extensions={"sni_hostname": "localhost"}
                )
                assert answer.status_code == status
    for path in ("nginx/ollama-web-api.conf", "proxy/nginx.conf"):
        text = (ROOT / "deploy" / path).read_text("utf-8")
        ports = re.findall(r"listen (\d.*?);", text)
        assert ports
        assert re.findall(r"listen \[::\]:(\d.*?);", text) == ports


async def test_http_2_is_spoken_and_errors_have_the_one_shape(
    run: Run, tmp_path: Path, gateway: str
) -> None:
    # Small bodies: curl 7.88 loses an answer that comes over HTTP/2 while it is still sending.
    limits: dict[Run, tuple[str, str]] = {
        caddy: ("max_size 32MB", "max_size 1KB"),
        nginx: ("client_max_body_size 32m", "client_max_body_size 1k"),
    }
    with run(tmp_path, gateway, limits[run]) as front:
        done = await asyncio.to_thread(
            curl, front, "--http2", "-H", f"X-API-Key: {KEY}", f"{front.url}/api/models"
        )
        assert done == {"success": True, "version": "2", "status": 200}
        async with front.client() as client:
            hidden = await client.get("/metrics")
            assert (hidden.status_code, hidden.json()["success"]) == (404, False)
            unknown = await client.get("/api/none")
            assert unknown.json()["error"].startswith("Unknown endpoint")
        large = tmp_path / "large"
        large.write_bytes(b"[" * 20_000)
        asked = ("--json", f"@{large}", f"{front.url}/api/chat")
        done = await asyncio.to_thread(curl, front, "--http2", "-H", f"X-API-Key: {KEY}", *asked)
        assert done == {"success": False, "version": "2", "status": 413}


async def test_what_nginx_itself_refuses_has_the_one_shape(tmp_path: Path, gateway: str) -> None:
    large = b"a" * 10_000
    with nginx(tmp_path, gateway) as front:
        statuses = {
            head[:20]: refused(front, head)
            for head in (
                b"GARBAGE",
                b"GET /" + large,
                b"GET / HTTP/1.1\r\nX-Large: " + large,
                b"TRACE / HTTP/1.1",
                b"GET / HTTP/3.0",
                b"POST / HTTP/1.1\r\nTransfer-Encoding: own",
            )
        }
        assert [*statuses.values()] == [400, 414, 400, 405, 505, 501], statuses
        assert refused(front, b"GET / HTTP/1.1", tls=False) == 400


async def test_too_many_connections_to_nginx_are_told_when_to_try_again(
    tmp_path: Path, gateway: str, fake: FakeOllama
) -> None:
    fake.default = stalls_after(1)
    change = ("limit_conn ollama_web_api 64", "limit_conn ollama_web_api 1")
    with nginx(tmp_path, gateway, change) as front:
        async with (
            front.client() as client,
            asyncio.timeout(30),
            client.stream("POST", "/api/chat/stream", json=CHAT) as answer,
        ):
            lines = answer.aiter_lines()  # kept, so that the stream stays open
            await anext(lines)
            refusal = await client.get("/api/health")
    assert (refusal.status_code, refusal.json()["success"]) == (429, False)
    assert int(refusal.headers["retry-after"]) > 0


async def test_a_gateway_that_is_late_or_down_is_an_error_of_the_one_shape(
    run: Run, tmp_path: Path, gateway: str, fake: FakeOllama
) -> None:
    fake.default = never_answers
    with run(tmp_path, gateway, ("310s", "1s")) as front:
        async with front.client() as client:
            late = await client.post("/api/chat", json=CHAT)
    assert (late.status_code, late.json()) == (
        504,
        {"success": False, "error": "The gateway has not answered in time"},
    )
    assert late.headers["content-type"].startswith("application/json")
    (nobody,) = free_ports(1)
    with run(tmp_path, f"127.0.0.1:{nobody}") as front:
        async with front.client() as client:
            down = await client.get("/api/health")
    assert (down.status_code, down.json()) == (
        502,
        {
            "success": False,
            "error": "The gateway does not answer. Is ollama-web-api running?",
        },
    )


async def test_a_front_allows_for_more_time_than_the_gateway(run: Run) -> None:
    paths: dict[Run, str] = {caddy: "caddy/Caddyfile", nginx: "nginx/ollama-web-api.conf"}
    path = paths[run]
    text = (ROOT / "deploy" / path).read_text("utf-8")
    waits = [
        int(seconds) for seconds in re.findall(r"(?:read|response_header)_timeout (\d+)s", text)
    ]
    assert waits
    assert min(waits) > Settings().request_timeout_s


def refused(front: Front, head: bytes, *, tls: bool = True) -> int:
    """Send a request that `front` has to refuse, and return the status, if the shape is right."""
    with socket.create_connection(("127.0.0.1", front.port), 30) as plain:
        sock = front.context.wrap_socket(plain, server_hostname="localhost") if tls else plain
        with sock, sock.makefile("rb") as answer:
            sock.sendall(head + b"\r\nHost: localhost\r\n\r\n")
            status = int(answer.readline().split()[1])
            headers = dict(line.lower().split(b": ", 1) for line in iter(answer.readline, b"\r\n"))
            body = json.loads(answer.read(int(headers[b"content-length"])))
    assert headers[b"content-type"] == b"application/json\r\n"
    assert body.keys() == {"success", "error"}
    assert body["success"] is False
    return status


def curl(front: Front, *arguments: str) -> dict[str, object]:
    """Call with curl, which speaks HTTP/2, and return the outcome."""
    done = subprocess.run(
        [
            *(program("curl", "apt install curl"), "--silent", "--cacert", front.authority),
            *("--write-out", "\n%{http_version} %{http_code}", *arguments),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    *body, last = done.stdout.strip().split("\n")
    version, status = last.split()
    success = json.loads("".join(body))["success"]
    return {"success": success, "version": version, "status": int(status)}
