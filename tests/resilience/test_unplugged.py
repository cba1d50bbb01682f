"""Ollama's machine loses power or network: packets vanish silently."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from core.ollama import connection
from tests.conftest import Serve
from tests.namespaces import Machine, fake_ollama_on, machine

CHAT = {"message": "hi", "model": "smollm2:135m"}
LIMIT_S = 5
"""How long an error may take here, where TCP's limits are a tenth of the real ones."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "KEEPALIVE_IDLE_S", 1)
    monkeypatch.setattr(connection, "KEEPALIVE_INTERVAL_S", 1)
    monkeypatch.setattr(connection, "UNACKNOWLEDGED_S", 1.5)


@pytest.fixture(scope="module")
def other() -> Iterator[Machine]:
    with machine() as host:
        yield host


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        yield client


async def test_requests_fail_soon_and_the_next_ones_are_answered(
    serve: Serve, other: Machine, client: httpx.AsyncClient
) -> None:
    with fake_ollama_on(other, "--pace", "0.2") as ollama:
        url = await serve(ollama_base_url=ollama, ollama_connect_timeout_s=1)
        assert (await client.post(f"{url}/api/chat", json=CHAT)).status_code == 200
        async with client.stream("POST", f"{url}/api/chat/stream", json=CHAT) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            await client.get(f"{url}/api/models")  # leaves an idle connection
            other.unplug()
            async with asyncio.timeout(LIMIT_S):
                kept, *new = await asyncio.gather(
                    *(client.post(f"{url}/api/chat", json=CHAT) for _ in range(3))
                )
                last = [json.loads(line) async for line in lines][-1]
        for answer in (kept, *new):
            assert answer.status_code == 500
            assert answer.json()["error"].startswith("Ollama connection error: ")
        assert "stopped responding" in kept.json()["error"]
        assert (last["success"], last["done"]) == (False, True)
        assert "stopped responding" in last["error"]
        queue = (await client.get(f"{url}/api/stats")).json()["queue"]
        assert queue == {"running": 0, "waiting": 0}
        other.plug_in()
        async with asyncio.timeout(LIMIT_S):
            assert (await client.post(f"{url}/api/chat", json=CHAT)).status_code == 200


async def test_a_model_that_thinks_in_silence_is_not_cut_off(
    serve: Serve, other: Machine, client: httpx.AsyncClient
) -> None:
    with fake_ollama_on(other, "--pace", "4", "--tokens", "x") as ollama:
        url = await serve(ollama_base_url=ollama)
        answer = await client.post(f"{url}/api/chat", json=CHAT)
        assert answer.json()["response"] == "x"
