import asyncio

import pytest

from core.ollama import upstream
from handlers import health
from tests.conftest import Connect
from tests.fake_ollama import FakeOllama, error, never_answers, page, recorded

CONNECTED = {"status": "ok", "ollama_status": "connected", "api_version": "1.0.0"}
DISCONNECTED = {**CONNECTED, "ollama_status": "disconnected"}


@pytest.mark.parametrize("path", ["/api/health", "/api/health/"])
async def test_it_reports_ollama_as_connected(
    connect: Connect, fake: FakeOllama, path: str
) -> None:
    answer = await connect(health).get(path)
    assert answer.status_code == 200
    assert answer.json() == CONNECTED
    assert list(answer.json()) == list(CONNECTED)
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert [request.path for request in fake.requests] == ["/api/version"], "no model is touched"


async def test_head_is_served_too(connect: Connect) -> None:
    assert (await connect(health).head("/api/health")).status_code == 200


async def test_ollama_down_is_still_a_200(connect: Connect, fake: FakeOllama) -> None:
    await fake.stop()
    answer = await connect(health).get("/api/health")
    assert (answer.status_code, answer.json()) == (200, DISCONNECTED)
    await fake.start()
    assert (await connect(health).get("/api/health")).json() == CONNECTED


@pytest.mark.parametrize(
    "reply",
    [error(500, "no"), page(502), page(200), recorded("err_host_evil"), recorded("trailing_slash")],
)
async def test_anything_but_ollama_counts_as_disconnected(
    connect: Connect, fake: FakeOllama, reply: object
) -> None:
    fake.reply(reply, path="/api/version")  # type: ignore[arg-type]
    assert (await connect(health).get("/api/health")).json() == DISCONNECTED


async def test_it_answers_within_two_seconds_when_ollama_hangs(
    connect: Connect, fake: FakeOllama
) -> None:
    assert upstream.HEALTH_TIMEOUT_S <= 1.5
    fake.reply(never_answers, path="/api/version")
    async with asyncio.timeout(20):
        assert (await connect(health).get("/api/health")).json() == DISCONNECTED
