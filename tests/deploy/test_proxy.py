"""The real nginx and Caddy in front of the gate, with the lines to copy, and with wrong ones."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from core.settings.networks import Networks
from tests.conftest import Serve
from tests.fake_ollama import FakeOllama, Lockstep
from tests.programs import ROOT, free_ports, program, started

NGINX = """
daemon off;
pid nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    # The tests' clients are all on this machine; this header says whom they play.
    set_real_ip_from 127.0.0.1;
    real_ip_header X-Played-Client;
    include server.conf;
}
"""
CADDY = "{\n\tadmin off\n\tauto_https off\n\tdefault_bind 127.0.0.1\n}\n"
NAMES_CLIENT = "proxy_set_header X-Forwarded-For $remote_addr;"
NAMES_SCHEME = "proxy_set_header X-Forwarded-Proto $scheme;"
COLLEAGUE = "203.0.113.9"
COLLEAGUES = Networks("127.0.0.0/8,::1/128,203.0.113.0/24")
STRANGER = "198.51.100.7"

WRONG_NGINX = [
    "proxy_set_header X-Real-IP $remote_addr;",
    "proxy_set_header Forwarded for=$remote_addr;",
    NAMES_SCHEME,
    "proxy_set_header X-Forwarded-Host $host;",
    "proxy_set_header X-Forwarded-Port $server_port;",
    "proxy_set_header X-Client-IP $remote_addr;",
    "proxy_set_header True-Client-IP $remote_addr;",
    "proxy_set_header CF-Connecting-IP $remote_addr;",
    "proxy_set_header Via nginx;",
    f"proxy_set_header X-Real-IP $remote_addr; {NAMES_SCHEME}",
    f"{NAMES_SCHEME} proxy_set_header X-Forwarded-For $http_x_forwarded_for;",
]
WRONG_CADDY = [
    "header_up -X-Forwarded-For",
    "header_up X-Forwarded-For {http.request.header.X-Forwarded-For}",
    "header_up -X-Forwarded-For\nheader_up X-Real-IP {remote_host}",
    "header_up -X-Forwarded-*\nheader_up Forwarded for={remote_host}",
    "header_up -X-Forwarded-*\nheader_up Tailscale-User-Login ann@example.com",
]
LIES: list[dict[str, str]] = [
    {},
    *(
        {name: value}
        for name in ("X-Forwarded-For", "X-Real-IP", "X-Client-IP", "Forwarded")
        for value in ("127.0.0.1", "::1", "127.0.0.1, 127.0.0.1", "for=127.0.0.1")
    ),
    {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1"},
]

Proxy = Callable[..., AbstractAsyncContextManager[str]]


def edited(path: str, *changes: tuple[str, object]) -> str:
    """Return the file to copy with `changes`; each must apply."""
    text = (ROOT / "deploy/proxy" / path).read_text("utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, str(new))
    return text


@asynccontextmanager
async def nginx(folder: Path, gate: str, *changes: tuple[str, object]) -> AsyncIterator[str]:
    command = program("nginx", "apt install nginx")
    (port,) = free_ports(1)
    server = edited(
        "nginx.conf",
        ("listen 443 ssl", f"listen 127.0.0.1:{port}"),
        ("listen [::]:443 ssl", f"listen [::1]:{port}"),
        ("http://127.0.0.1:5000", gate),
        ("    ssl_certificate /etc/ssl/certs/api.example.com.pem;\n", ""),
        ("    ssl_certificate_key /etc/ssl/private/api.example.com.key;\n", ""),
        *changes,
    )
    (folder / "server.conf").write_text(server, "utf-8")
    (folder / "nginx.conf").write_text(NGINX, "utf-8")
    arguments: list[str | Path] = [command, "-e", "error.log", "-p", folder, "-c", "nginx.conf"]
    with started(arguments, {}):
        yield await listening(port)


@asynccontextmanager
async def caddy(folder: Path, gate: str, *changes: tuple[str, object]) -> AsyncIterator[str]:
    command = program("caddy", "apt install caddy")
    (port,) = free_ports(1)
    text = edited(
        "Caddyfile",
        ("api.example.com {", f"http://127.0.0.1:{port} {{"),
        ("127.0.0.1:5000", httpx.URL(gate).netloc.decode()),
        *changes,
    )
    (folder / "Caddyfile").write_text(CADDY + text, "utf-8")
    with started([command, "run", "--config", folder / "Caddyfile"], {"HOME": str(folder)}):
        yield await listening(port)


async def listening(port: int) -> str:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return f"http://127.0.0.1:{port}"


async def statuses(url: str, played: str = STRANGER) -> list[int]:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        answers = [
            await client.get("/api/models", headers={"X-Played-Client": played, **lie})
            for lie in LIES
        ]
    return [answer.status_code for answer in answers]


@pytest.mark.parametrize("trusted", ["127.0.0.1", "none"])
@pytest.mark.parametrize("lines", WRONG_NGINX)
async def test_with_wrong_lines_in_nginx_nobody_gets_in(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture, lines: str, trusted: str
) -> None:
    gate = await serve(trusted_proxies=Networks(trusted))
    changes = [(NAMES_CLIENT, ""), (NAMES_SCHEME, lines)]
    async with nginx(tmp_path, gate, *changes) as url:
        assert set(await statuses(url)) == {401}
    advice = [line for line in caplog.messages if NAMES_CLIENT in line]
    assert bool(advice) == (trusted == "127.0.0.1")
    assert len(advice) <= 2


@pytest.mark.parametrize("trusted", ["127.0.0.1", "none"])
@pytest.mark.parametrize("lines", WRONG_CADDY)
async def test_with_wrong_lines_in_caddy_nobody_gets_in(
    serve: Serve, tmp_path: Path, lines: str, trusted: str
) -> None:
    gate = await serve(trusted_proxies=Networks(trusted))
    place = httpx.URL(gate).netloc.decode()
    changes = [(f"reverse_proxy {place}", f"reverse_proxy {place} {{\n{lines}\n}}")]
    async with caddy(tmp_path, gate, *changes) as url:
        assert set(await statuses(url)) == {401}


async def test_the_right_lines_in_nginx_name_the_client(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gate = await serve(trusted_proxies=Networks("127.0.0.1"), anonymous_clients=COLLEAGUES)
    async with nginx(tmp_path, gate) as url:
        truth = [lie for lie in LIES if "X-Real-IP" not in lie]
        found = await statuses(url, COLLEAGUE)
        assert [found[LIES.index(lie)] for lie in truth] == [200] * len(truth)
        assert set(found) <= {200, 401}
        assert set(await statuses(url, STRANGER)) == {401}
    assert not [line for line in caplog.messages if "but no client" in line]


async def test_the_right_lines_in_caddy_name_the_client(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gate = await serve(trusted_proxies=Networks("127.0.0.1"), anonymous_clients=COLLEAGUES)
    async with caddy(tmp_path, gate) as url:
        assert set(await statuses(url)) == {401}, "Caddy saw a client on this machine"
    assert not [line for line in caplog.messages if "but no client" in line]
    # The tests' clients are all on this machine, so Caddy trusts them as proxies.
    place = httpx.URL(gate).netloc.decode()
    changed = f"reverse_proxy {place} {{\ntrusted_proxies 127.0.0.1/32\n}}"
    async with (
        caddy(tmp_path, gate, (f"reverse_proxy {place}", changed)) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        for address, status in ((COLLEAGUE, 200), (STRANGER, 401)):
            answer = await client.get("/api/models", headers={"X-Forwarded-For": address})
            assert answer.status_code == status


@pytest.mark.parametrize("proxy", [nginx, caddy])
async def test_a_stream_passes_token_by_token(
    serve: Serve, fake: FakeOllama, tmp_path: Path, proxy: Proxy
) -> None:
    gate = await serve(
        trusted_proxies=Networks("127.0.0.1"), anonymous_clients=Networks("0.0.0.0/0")
    )
    lockstep = Lockstep(["a", "b", "c"])
    fake.reply(lockstep)
    lines = 0
    async with (
        proxy(tmp_path, gate) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
        client.stream("POST", "/api/chat/stream", json={"message": "hi"}) as answer,
    ):
        assert answer.status_code == 200
        async for _ in answer.aiter_lines():
            lines += 1
            lockstep.next()
    assert lines == 4


@pytest.mark.parametrize("name", ["README.md", "README.ko.md"])
def test_the_readme_shows_the_lines_that_name_the_client(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert NAMES_CLIENT in text
    assert "reverse_proxy 127.0.0.1:5000" in text
    assert edited("nginx.conf", (NAMES_CLIENT, "")) != edited("nginx.conf")
    assert edited("Caddyfile", ("reverse_proxy 127.0.0.1:5000", ""))
