"""A client of the embedded engine."""

from collections.abc import AsyncIterator

import httpx
import pytest


@pytest.fixture
async def engine(engine_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=engine_url, timeout=60, trust_env=False) as client:
        yield client
