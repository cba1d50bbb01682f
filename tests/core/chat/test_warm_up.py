"""WARM_UP: models are loaded before anyone asks, and nobody has to wait."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from core.chat import leases, warm_up
from core.contract.retryable import RateLimiterDown
from tests.conftest import Serve
from tests.fake_ollama import Connection, FakeOllama, Request, error, never_answers, no_tokens
from tests.redis_server import RedisServer

MODEL = "smollm2:135m"
CHAT = {"message": "안녕", "model": MODEL}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_up, "WATCH_S", 0.02)
    monkeypatch.setattr(warm_up, "RETRY_S", 0.02)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        yield client


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def looks(fake: FakeOllama, count: int) -> None:
    """Wait until it has been looked at so many times more."""
    before = len(fake.requests)
    await until(lambda: len(fake.requests) >= before + count)


async def ready(client: httpx.AsyncClient, url: str, status: int = 200) -> httpx.Response:
    async with asyncio.timeout(10):
        while (answer := await client.get(f"{url}/api/ready")).status_code != status:
            await asyncio.sleep(0.01)
    return answer


async def test_models_are_loaded_at_the_start_and_ready_waits_for_them(
    serve: Serve, fake: FakeOllama, client: httpx.AsyncClient
) -> None:
    let_go = asyncio.Event()

    async def slow(connection: object, request: object) -> None:
        await let_go.wait()
        await no_tokens(connection, request)  # type: ignore[arg-type]

    fake.reply(slow, no_tokens)
    url = await serve(warm_up=(MODEL, "qwen2.5:72b"))
    request = await fake.wait_for(1)
    assert request.json == {"model": MODEL, "messages": [], "stream": False}, (
        "no prompt, and nothing pinned"
    )
    answer = await ready(client, url, 503)
    assert answer.json()["error"].startswith(f"Models are being loaded: {MODEL}, qwen2.5:72b")
    let_go.set()
    await ready(client, url)
    assert [request.json["model"] for request in fake.asked()] == [MODEL, "qwen2.5:72b"]


async def test_they_are_loaded_again_when_ollama_has_come_back(
    serve: Serve, fake: FakeOllama, client: httpx.AsyncClient
) -> None:
    url = await serve(warm_up=(MODEL,))
    await ready(client, url)
    assert len(fake.asked()) == 1
    await fake.stop()
    await ready(client, url, 503)
    await fake.start()
    await fake.wait_for(2)
    await ready(client, url)


async def test_a_restart_between_two_looks_is_noticed(
    serve: Serve, fake: FakeOllama, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await serve(warm_up=(MODEL,))
    await ready(client, url)
    await looks(fake, 3)
    monkeypatch.setattr(warm_up, "WATCH_S", 1)
    await looks(fake, 2)
    await fake.stop()
    await fake.start()
    await fake.wait_for(2)
    await ready(client, url)
    assert len(fake.asked()) == 2


async def test_without_a_restart_nothing_is_loaded_again(
    serve: Serve, fake: FakeOllama, client: httpx.AsyncClient
) -> None:
    url = await serve(warm_up=(MODEL,))
    await ready(client, url)
    await looks(fake, 10)

    async def says_that_it_closes(connection: Connection, request: Request) -> None:
        connection._keep_alive = False
        connection.send(200, "application/json", b'{"version":"0.24.0"}')

    fake.reply(*[says_that_it_closes] * 20, path="/api/version")
    await looks(fake, 10)
    assert len(fake.asked()) == 1


async def test_an_ollama_that_comes_late_is_waited_for(
    serve: Serve, fake: FakeOllama, client: httpx.AsyncClient
) -> None:
    await fake.stop()
    url = await serve(warm_up=(MODEL,))
    assert (await client.get(f"{url}/api/ready")).status_code == 503
    await fake.start()
    await fake.wait_for(1)
    await ready(client, url)


async def test_it_has_the_lowest_turn_of_all(
    serve: Serve, fake: FakeOllama, client: httpx.AsyncClient
) -> None:
    await fake.stop()
    url = await serve(warm_up=(MODEL,), max_concurrent=1)
    await fake.start()
    fake.reply(*[never_answers] * 10, path="/api/version")  # not before the others wait
    chats = [asyncio.create_task(client.post(f"{url}/api/chat", json=CHAT)) for _ in range(5)]
    await asyncio.gather(*chats)
    fake._replies.clear()
    await ready(client, url)
    prompts = [bool(request.json["messages"]) for request in fake.asked()]
    assert prompts == [True] * 5 + [False]


async def test_a_model_that_is_not_there_does_not_keep_the_server_from_being_ready(
    serve: Serve, fake: FakeOllama, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    fake.reply(error(500, "out of memory"))
    url = await serve(warm_up=(MODEL, "none:1b"))
    await ready(client, url)
    assert f"WARM_UP: {MODEL} was not loaded" in caplog.text
    assert "WARM_UP: none:1b was not loaded" in caplog.text
    assert (await client.post(f"{url}/api/chat", json=CHAT)).status_code == 200


async def test_a_model_that_never_loads_does_not_keep_the_server_unready(
    serve: Serve, fake: FakeOllama, client: httpx.AsyncClient
) -> None:
    fake.reply(never_answers)
    url = await serve(max_concurrent=1, warm_up=(MODEL,), request_timeout_s=0.3)
    await ready(client, url)
    assert len(fake.asked()) == 1


async def test_without_it_nothing_is_loaded(
    serve: Serve, fake: FakeOllama, client: httpx.AsyncClient
) -> None:
    url = await serve()
    await ready(client, url)
    assert fake.asked() == []


async def test_models_are_loaded_where_processes_share_a_queue(
    serve: Serve, fake: FakeOllama, redis: RedisServer, client: httpx.AsyncClient
) -> None:
    url = await serve(warm_up=(MODEL,), rate_limit_storage=redis.url, share_queue="always")
    await ready(client, url)
    assert len(fake.asked()) == 1


async def test_a_store_that_comes_late_is_waited_for(
    serve: Serve,
    fake: FakeOllama,
    redis: RedisServer,
    client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = asyncio.Event()

    class Refused(RateLimiterDown):
        def __init__(self, problem: str, retry_after_s: int) -> None:
            super().__init__(problem, retry_after_s)
            refused.set()

    monkeypatch.setattr(leases, "OUTAGE_S", 0.1)
    monkeypatch.setattr(leases, "RateLimiterDown", Refused)
    redis.stop()
    url = await serve(
        warm_up=(MODEL,),
        rate_limit_storage=redis.url,
        rate_limit_fail_closed=True,
        share_queue="always",
    )
    await asyncio.wait_for(refused.wait(), 10)
    await ready(client, url, 503)
    redis.start()
    await ready(client, url)
    assert len(fake.asked()) == 1
