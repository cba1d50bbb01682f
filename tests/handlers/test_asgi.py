"""Behaviour common to all endpoints, over real sockets where that matters."""

import asyncio
import importlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType

import httpx
import pytest

from core import __version__
from core.app import create_app
from handlers import asgi, chat, chat_stream, health, models, openapi
from handlers.__main__ import main
from tests.conftest import Connect, Serve
from tests.fake_ollama import FakeOllama
from tests.gateway import MangumTransport
from tests.processes import running, wait_for
from tests.programs import program

ENDPOINTS = [health, models, chat, chat_stream, openapi]


def assert_error(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert list(answer.json()) == ["success", "error"]
    assert answer.json()["success"] is False


@pytest.mark.parametrize(
    "path", ["/nope", "/api", "/api/nope", "/api/chat/stream/x", "/api//chat", "/api/chat//"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_unknown_path_is_a_404(connect: Connect, method: str, path: str) -> None:
    answer = await connect(chat).request(method, path)
    assert_error(answer, 404)
    assert "/api/chat" in answer.json()["error"]


@pytest.mark.parametrize(
    ("endpoint", "path", "method", "allow"),
    [
        (health, "/api/health", "POST", "GET, HEAD"),
        (models, "/api/models/", "DELETE", "GET, HEAD"),
        (chat, "/api/chat", "GET", "POST"),
        (chat, "/api/chat", "HEAD", "POST"),
        (chat_stream, "/api/chat/stream", "PUT", "POST"),
    ],
)
async def test_a_wrong_method_is_a_405_that_names_the_right_one(
    connect: Connect, endpoint: ModuleType, path: str, method: str, allow: str
) -> None:
    answer = await connect(endpoint).request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allow
    if method != "HEAD":
        assert_error(answer, 405)
        assert answer.json()["error"].endswith(f"Use {allow}")


def test_an_endpoint_loads_none_of_its_siblings() -> None:
    names = [endpoint.__name__ for endpoint in ENDPOINTS]
    for name in names:
        code = f"import {name}, sys; print(*(n for n in sys.modules if n.startswith('handlers.')))"
        loaded = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert loaded.stdout.split() == [name]


def test_health_starts_without_what_it_does_not_use_and_leaves_the_collector_on() -> None:
    slow = ("httpx", "multiprocessing", "pickle", "prometheus_client", "redis", "sqlite3")
    code = f"import gc, sys, handlers.health; print(*sys.modules.keys() & {slow}, gc.isenabled())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["True"]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_endpoint_is_a_function_of_its_own(endpoint: ModuleType) -> None:
    assert endpoint.routes
    assert callable(endpoint.app)
    assert type(endpoint.handler).__name__ == "Handler"


def test_importing_reads_no_settings() -> None:
    code = "import handlers.asgi"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PORT": "nonsense"})


@pytest.mark.parametrize("lambda_", [False, True])
async def test_invalid_settings_are_a_500_that_reveals_no_value(
    monkeypatch: pytest.MonkeyPatch, lambda_: bool
) -> None:
    monkeypatch.setenv("OLLAMA_BASE_URL", "secret")
    app = create_app(health.routes)
    transport = MangumTransport(app) if lambda_ else httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/api/health")
    assert_error(answer, 500)
    assert "secret" not in answer.text


async def test_non_http_traffic_gets_a_400_in_the_same_shape(serve: Serve) -> None:
    url = httpx.URL(await serve())
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(b"GARBAGE\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/json; charset=utf-8" in head
    assert body == b'{"success":false,"error":"Invalid HTTP request received."}'


async def test_a_chunked_body_is_limited_too(serve: Serve, fake: FakeOllama) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 500
            await asyncio.sleep(0.01)

    url = await serve(max_body_bytes=2000)
    async with httpx.AsyncClient() as client:
        headers = {"Content-Type": "application/json"}
        answer = await client.post(f"{url}/api/chat", content=pieces(), headers=headers)
        assert_error(answer, 413)
    assert not fake.requests


async def test_a_connection_stays_usable_after_an_error(serve: Serve, fake: FakeOllama) -> None:
    url = httpx.URL(await serve(max_body_bytes=100))
    reader, writer = await asyncio.open_connection(url.host, url.port)
    for body, status in [(b"x" * 5000, 413), (b"{}", 400), (b'{"message":"hi"}', 200)] * 2:
        writer.write(
            b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
    writer.close()


@pytest.mark.parametrize(
    ("head", "status", "is_read"),
    [
        (b"POST /api/chat HTTP/1.1\r\nContent-Type: application/json", 200, True),
        (b"POST /api/chat HTTP/1.1\r\nContent-Type: text/plain", 415, False),
        (b"POST /api/chart HTTP/1.1\r\nContent-Type: application/json", 404, False),
        (b"PUT /api/chat HTTP/1.1\r\nContent-Type: application/json", 405, False),
    ],
)
async def test_a_client_that_waits_for_100_continue_gets_it_or_a_final_answer(
    serve: Serve, fake: FakeOllama, head: bytes, status: int, is_read: bool
) -> None:
    url = httpx.URL(await serve())
    reader, writer = await asyncio.open_connection(url.host, url.port)
    body = b'{"message":"hi"}'
    writer.write(
        b"%b\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        % (head, len(body))
    )
    answer = await reader.readuntil(b"\r\n\r\n")
    if is_read:
        assert answer == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert (b"connection: close" in answer.lower()) is not is_read
    if not is_read:
        await reader.read()
    writer.close()


def test_an_invalid_setting_fails_startup_with_one_line() -> None:
    for module in ("handlers", "uvicorn handlers.asgi:app --port 0"):
        ended = subprocess.run(
            [sys.executable, "-m", *module.split()],
            env={**os.environ, "OLLAMA_BASE_URL": "ftp://secret"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert ended.returncode != 0
        assert "OLLAMA_BASE_URL is invalid: expected" in ended.stderr
        assert "Traceback" not in ended.stderr
        assert "secret" not in ended.stderr


@pytest.mark.parametrize(
    ("argument", "status", "text"),
    [
        ("--version", 0, f"Ollama Web API {__version__}\n"),
        ("--help", 0, "Settings are environment variables"),
        ("--port", 2, "unrecognized arguments: --port"),
        ("serve", 2, "unrecognized arguments: serve"),
    ],
)
def test_the_command_line_answers_or_refuses_an_argument(
    argument: str, status: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([argument])
    assert exit_.value.code == status
    assert text in "".join(capsys.readouterr())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_container_that_is_still_starting_ends_when_told_to(number: signal.Signals) -> None:
    unshare = [program("unshare", "apt install util-linux"), "--pid", "--fork", "--kill-child"]
    unshare += ["--map-root-user"] if os.getuid() else []
    tried = subprocess.run([*unshare, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no process namespace can be made here: {tried.stderr.strip()}")
    enter = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
    command = ("-c", enter, *unshare, sys.executable, "-m", "handlers")
    with socket.create_server(("127.0.0.1", 0)) as ollama:
        ollama.settimeout(60)
        url = f"http://127.0.0.1:{ollama.getsockname()[1]}"
        with running(*command, OLLAMA_BASE_URL=url, PORT="0", WEB_PORT="0") as process:
            connection, _ = ollama.accept()  # it is asking for the models, which never come
            with connection:
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
                os.kill(int(children.read_text()), number)
                assert process.wait(timeout=30) == 128 + number


def test_the_procfile_starts_the_bundle() -> None:
    environ = {"PORT": "0", "WEB_PORT": "0", "LOG_FORMAT": "console", "PYTHONUNBUFFERED": "1"}
    with running("-m", "honcho", "start", **environ) as process:
        url = wait_for(process.stdout, "Listening for the API on ")
        assert httpx.get(f"{url}/api/health", trust_env=False).json()["status"] == "ok"


def test_the_bundle_has_every_endpoint() -> None:
    for path in Path("handlers").glob("*.py"):
        if path.stem not in {"__init__", "__main__", "asgi"}:
            endpoint = importlib.import_module(f"handlers.{path.stem}")
            assert all(route in asgi.routes for route in endpoint.routes)
