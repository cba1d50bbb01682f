"""A relay on loopback, and clients that have only its tunnel to Ollama."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from core.app import create_app
from core.settings.schema import Settings
from tests.deploy.tunnel.loopback import Relay, Tunnel
from tests.deploy.tunnel.loopback import relay as running_relay
from tests.fake_ollama import FakeOllama
from tests.gateway import Context, MangumTransport

Function = Callable[..., httpx.AsyncClient]
"""(endpoint's module, its time in seconds, settings ...) -> a client of it as a Lambda function."""


@pytest.fixture(scope="session")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    with running_relay(tmp_path_factory.mktemp("relay")) as relay:
        yield relay


@pytest.fixture
def impatient_relay(tmp_path: Path) -> Iterator[Relay]:
    """A relay that waits one second for Ollama."""
    with running_relay(tmp_path, ("310s", "1s")) as relay:
        yield relay


@pytest.fixture
async def tunnel(relay: Relay, fake: FakeOllama) -> AsyncIterator[Tunnel]:
    async with relay.tunnel(httpx.URL(fake.url).port or 0) as tunnel:
        yield tunnel


@pytest.fixture
async def function(relay: Relay) -> AsyncIterator[Function]:
    """Run an endpoint as a Lambda function that knows only the relay."""
    async with AsyncExitStack() as stack:

        def function(
            endpoint: ModuleType, timeout_s: float = 30, **values: Any
        ) -> httpx.AsyncClient:
            settings = Settings(**{**relay.settings, **values})
            app = create_app(endpoint.routes, settings)
            transport = MangumTransport(app, Context(int(timeout_s * 1000)))
            client = httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30)
            stack.push_async_callback(client.aclose)
            return client

        yield function
