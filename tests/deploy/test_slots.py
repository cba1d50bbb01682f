"""Many sandboxes at once: they share the slots of Ollama in Redis, as functions on AWS do."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from core.chat.leases import LEASE_S
from tests.deploy.conftest import Sandbox, unpack
from tests.deploy.events import Event, rest_api
from tests.deploy.runtime_api import RuntimeAPI
from tests.fake_ollama import Connection, FakeOllama, Request, tokens
from tests.redis_server import RedisServer
from tests.slow_link import slow_link

SLOTS, PLACES, SANDBOXES = 2, 5, 10
THREADS = ThreadPoolExecutor(SANDBOXES)


@pytest.fixture(scope="session")
def shared_roots(redis_zips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The functions as `package.py --redis` packs them, unpacked."""
    return unpack(redis_zips, tmp_path_factory.mktemp("redis-var"))


class Generations:
    """Counts what the fake Ollama is working on; answers end when the test says so."""

    def __init__(self, fake: FakeOllama) -> None:
        fake.default = self.reply
        self.running = self.most = self.begun = 0
        self.changed = asyncio.Event()
        self.end = asyncio.Semaphore(0)

    async def reply(self, connection: Connection, request: Request) -> None:
        self.begun += 1
        self.running += 1
        self.most = max(self.most, self.running)
        self.changed.set()
        try:
            await self.end.acquire()
        finally:
            self.running -= 1
        await tokens(["안녕"])(connection, request)

    async def until_begun(self, count: int) -> None:
        async with asyncio.timeout(60):
            while self.begun < count:
                await self.changed.wait()
                self.changed.clear()


@pytest.fixture
async def sandboxes(
    sandbox: Sandbox, shared_roots: Path, redis: RedisServer
) -> AsyncIterator[list[RuntimeAPI]]:
    environ = {
        "RATE_LIMIT_STORAGE": redis.url,
        "RATE_LIMIT": "off",
        "MAX_CONCURRENT": str(SLOTS),
        "MAX_QUEUE": str(PLACES),
    }
    with ExitStack() as stack:
        yield [
            stack.enter_context(sandbox("chat", shared_roots, **environ)) for _ in range(SANDBOXES)
        ]


def event(client: str) -> Event:
    body = {"message": "안녕"}
    made = rest_api(httpx.Request("POST", "https://x.example.com/api/chat", json=body))
    made["requestContext"]["identity"]["sourceIp"] = client
    return made


def ask(api: RuntimeAPI, client: str) -> asyncio.Future[Any]:
    return asyncio.get_running_loop().run_in_executor(
        THREADS, lambda: api.invoke(event(client), 120).json()
    )


async def test_never_more_generations_than_slots_and_never_a_bare_error(
    sandboxes: list[RuntimeAPI], fake: FakeOllama
) -> None:
    generations = Generations(fake)
    tasks = [ask(api, f"192.0.2.{number}") for number, api in enumerate(sandboxes)]
    refused = SANDBOXES - SLOTS - PLACES
    async with asyncio.timeout(60):
        while sum(task.done() for task in tasks) < refused:
            await asyncio.wait(tasks, timeout=1, return_when=asyncio.FIRST_COMPLETED)
    await generations.until_begun(SLOTS)
    assert generations.most == SLOTS
    for count in range(SLOTS + 1, SLOTS + PLACES + 1):
        generations.end.release()
        await generations.until_begun(count)
    for _ in range(SLOTS):
        generations.end.release()
    answers = await asyncio.gather(*tasks)
    assert generations.most == SLOTS
    assert Counter(answer["statusCode"] for answer in answers) == {
        200: SLOTS + PLACES,
        503: refused,
    }
    for answer in answers:
        body = json.loads(answer["body"])
        assert body["success"] == (answer["statusCode"] == 200)
        if answer["statusCode"] == 503:
            assert int(answer["headers"]["retry-after"]) > 0
            assert body["error"].startswith("The queue is full")


async def test_one_client_cannot_keep_the_others_out(
    sandboxes: list[RuntimeAPI], fake: FakeOllama
) -> None:
    generations = Generations(fake)
    crowd = [ask(api, "192.0.2.1") for api in sandboxes[: SLOTS + 3]]
    await generations.until_begun(SLOTS)
    other = ask(sandboxes[-1], "192.0.2.2")
    for count in range(SLOTS + 1, SLOTS + 4):  # it comes next, wherever it has joined
        generations.end.release()
        await generations.until_begun(count)
    for _ in range(SLOTS + 4):
        generations.end.release()
    await asyncio.wait({other}, timeout=30)
    assert other.result()["statusCode"] == 200
    assert {answer["statusCode"] for answer in await asyncio.gather(*crowd)} == {200}


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_a_sandbox_that_is_gone_loses_its_slot(
    sandboxes: list[RuntimeAPI], fake: FakeOllama, end: signal.Signals
) -> None:
    generations = Generations(fake)
    for api in sandboxes[:SLOTS]:
        api.events.put((json.dumps(event("192.0.2.1")).encode(), 120))
    await generations.until_begun(SLOTS)
    for api in sandboxes[:SLOTS]:
        assert api.sandbox
        api.sandbox.send_signal(end)
    waiting = ask(sandboxes[-1], "192.0.2.2")
    async with asyncio.timeout(LEASE_S + 10):
        await generations.until_begun(SLOTS + 1)
    for _ in range(SLOTS + 1):
        generations.end.release()
    assert (await waiting)["statusCode"] == 200
    for api in sandboxes[:SLOTS]:
        assert api.sandbox
        api.sandbox.send_signal(signal.SIGCONT)


async def test_a_store_far_away_that_is_restarted_costs_no_slot_and_no_turn(
    sandbox: Sandbox, shared_roots: Path, redis: RedisServer, fake: FakeOllama
) -> None:
    generations = Generations(fake)
    async with slow_link(redis.port, 0.04) as port:
        environ = {
            "RATE_LIMIT_STORAGE": f"redis://127.0.0.1:{port}",
            "RATE_LIMIT": "off",
            "MAX_CONCURRENT": "1",
        }
        with ExitStack() as stack:
            crowd = [
                stack.enter_context(sandbox("chat", shared_roots, **environ)) for _ in range(5)
            ]
            tasks = [ask(api, f"192.0.2.{number}") for number, api in enumerate(crowd)]
            await generations.until_begun(1)
            await until_waiting(redis, 4)
            redis.stop()
            await asyncio.sleep(1)
            redis.start()  # it has forgotten everything
            await until_waiting(redis, 4)
            for count in range(2, 6):
                assert generations.running == 1
                generations.end.release()
                await generations.until_begun(count)
            generations.end.release()
            answers = await asyncio.gather(*tasks)
    assert generations.most == 1
    assert [answer["statusCode"] for answer in answers] == [200] * 5


async def test_without_the_store_a_function_refuses_in_the_contract_s_words(
    sandbox: Sandbox, shared_roots: Path, redis: RedisServer, fake: FakeOllama
) -> None:
    redis.stop()
    environ = {"RATE_LIMIT_STORAGE": redis.url, "RATE_LIMIT": "off"}
    with sandbox("chat", shared_roots, **environ) as api:
        answer = await ask(api, "192.0.2.1")
    assert answer["statusCode"] == 503
    assert int(answer["headers"]["retry-after"]) > 0
    assert json.loads(answer["body"]) == {
        "success": False,
        "error": "No slot is available: the store that counts them is down. Try again in 5 seconds",
    }
    assert not fake.asked()


async def until_waiting(redis: RedisServer, count: int) -> None:
    with Redis(port=redis.port) as store:
        async with asyncio.timeout(60):
            while True:
                keys = list(store.scan_iter("*:waiting"))
                if keys and store.zcard(keys[0]) == count:
                    return
                await asyncio.sleep(0.05)
