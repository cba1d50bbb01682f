import asyncio
import logging
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from core.app import create_app
from core.chat import leases
from core.chat.leases import Lease, LeasedQueue
from core.chat.queue import FairQueue
from core.context import Caller
from core.contract.retryable import QueueFull, RateLimiterDown
from core.settings.schema import Settings
from tests.redis_server import RedisServer
from tests.slow_link import slow_link

TIMEOUT_S = leases.TIMEOUT_S

Process = Callable[..., LeasedQueue]
"""(settings ...) -> the queue of one more process."""


def client(name: str, concurrent: int | None = None) -> Caller:
    return Caller(id=f"key:{name}", name=name, address="192.0.2.1", concurrent=concurrent)


@pytest.fixture
def settings(redis: RedisServer) -> dict[str, Any]:
    return {"rate_limit_storage": redis.url, "max_concurrent": 2}


@pytest.fixture
async def process(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Process]:
    monkeypatch.setattr(leases, "TIMEOUT_S", 20)
    monkeypatch.setattr(leases, "POLL_S", 0.01)
    monkeypatch.setattr(leases, "SETTLE_S", 0)
    async with AsyncExitStack() as stack:

        def process(**values: Any) -> LeasedQueue:
            queue = LeasedQueue(Settings(**{**settings, **values}))
            stack.push_async_callback(queue.aclose)
            return queue

        yield process


class Hall:
    """Requests of many processes, each lasting until the test ends it."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.inside: list[tuple[str, asyncio.Event]] = []
        self.served: list[str] = []
        self.running = self.most = 0
        self.changed = asyncio.Condition()
        self.queues: list[LeasedQueue] = []
        self.leases: list[Lease] = []

    async def request(self, name: str, **values: Any) -> Lease:
        queue = self.process(**values)
        self.queues.append(queue)
        async with queue.slot(client(name, values.pop("concurrent", None))) as lease:
            end = asyncio.Event()
            self.leases.append(lease)
            async with self.changed:
                self.inside.append((name, end))
                self.served.append(name)
                self.running += 1
                self.most = max(self.most, self.running)
                self.changed.notify_all()
            await end.wait()
            self.running -= 1
        return lease

    async def served_so_far(self, count: int) -> None:
        async with self.changed, asyncio.timeout(10):
            await self.changed.wait_for(lambda: len(self.served) >= count)

    def finish(self) -> None:
        self.inside.pop(0)[1].set()


async def waiting(queue: LeasedQueue, count: int) -> None:
    """Return when `count` requests wait in the store."""
    await members(queue, "waiting", count)


async def members(queue: LeasedQueue, name: str, count: int) -> None:
    async with asyncio.timeout(10):
        while await queue._script.registered_client.zcard(key_of(queue, name)) != count:
            await asyncio.sleep(0.01)


async def end_of(queue: LeasedQueue, lease: Lease) -> float:
    """Return when a lease ends unless it is renewed, by the clock that `time.time` reads."""
    end = await queue._script.registered_client.zscore(key_of(queue, "held"), lease.ticket)
    assert end is not None
    return float(end)


def key_of(queue: LeasedQueue, name: str) -> str:
    return next(key for key in queue._keys if key.endswith(f":{name}"))


async def test_processes_share_their_slots(process: Process) -> None:
    hall = Hall(process)
    tasks = [asyncio.create_task(hall.request(f"client{number % 5}")) for number in range(20)]
    for count in range(2, 21):
        await hall.served_so_far(count)
        hall.finish()
    hall.finish()
    await asyncio.gather(*tasks)
    assert hall.most == 2
    assert Counter(hall.served) == {f"client{number}": 4 for number in range(5)}


async def test_clients_take_turns(process: Process) -> None:
    hall, probe, tasks = Hall(process), process(), []
    for number, name in enumerate("aaaabbc"):
        tasks.append(asyncio.create_task(hall.request(name, max_concurrent=1)))
        await (waiting(probe, number) if number else hall.served_so_far(1))
    for count in range(2, 8):
        hall.finish()
        await hall.served_so_far(count)
    hall.finish()
    await asyncio.gather(*tasks)
    assert "".join(hall.served) == "abcabaa"


async def test_a_client_at_its_own_limit_is_skipped(process: Process) -> None:
    hall, probe = Hall(process), process()
    tasks = [asyncio.create_task(hall.request("a", max_concurrent_per_client=1)) for _ in "aa"]
    await waiting(probe, 1)
    assert len(hall.inside) == 1
    tasks.append(asyncio.create_task(hall.request("b", max_concurrent_per_client=1)))
    await hall.served_so_far(2)
    assert hall.served == ["a", "b"]
    for count in (3, 3, 3):
        hall.finish()
        await hall.served_so_far(count)
    await asyncio.gather(*tasks)


async def test_a_full_queue_says_when_to_come_again(process: Process) -> None:
    hall, probe = Hall(process), process()
    sizes = {"max_concurrent": 1, "max_queue": 2}
    tasks = [asyncio.create_task(hall.request("script", **sizes)) for _ in range(3)]
    await waiting(probe, 2)
    with pytest.raises(QueueFull, match="The queue is full: 2 requests wait for 1 slots") as full:
        await hall.request("script", **sizes)
    assert int(full.value.headers["retry-after"]) > 0
    page = asyncio.create_task(hall.request("page", **sizes))  # takes the script's last place
    done, _ = await asyncio.wait(tasks, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    (pushed_out,) = done
    with pytest.raises(QueueFull):
        await pushed_out
    hall.finish()
    await hall.served_so_far(2)
    hall.finish()
    await hall.served_so_far(3)
    hall.finish()
    await asyncio.gather(page, *(task for task in tasks if task is not pushed_out))
    assert sorted(hall.served) == ["page", "script", "script"]


async def test_a_turn_that_does_not_come_in_time(process: Process) -> None:
    async with process(max_concurrent=1).slot(client("a")):
        queue = process(max_concurrent=1, queue_timeout_s=0.1)
        with pytest.raises(QueueFull, match="No slot became free within 0"):
            await queue.slot(client("b")).__aenter__()
        await waiting(queue, 0)
        assert (queue.running, queue.waiting) == (0, 0)


@pytest.mark.parametrize("end", ["cancelled", "failed", "cancelled while it waits"])
async def test_a_slot_comes_back_whatever_ends_its_request(process: Process, end: str) -> None:
    queue = process(max_concurrent=1)
    inside = asyncio.Event()

    async def request() -> None:
        async with process(max_concurrent=1).slot(client("a")):
            inside.set()
            if end == "failed":
                raise ZeroDivisionError
            await asyncio.sleep(60)

    task = asyncio.create_task(request())
    await inside.wait()
    if end == "cancelled while it waits":
        second = asyncio.create_task(request())
        await waiting(queue, 1)
        second.cancel()
        await asyncio.wait({second})
        await waiting(queue, 0)
    task.cancel()
    await asyncio.wait({task})
    async with asyncio.timeout(10), queue.slot(client("b")):
        pass


async def test_a_process_that_is_gone_loses_its_slot_and_its_place(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, frozen = process(max_concurrent=1), process(max_concurrent=1)
    held, behind = killed.slot(client("a")), frozen.slot(client("b"))
    assert await killed.ask("join", held) == "held"
    assert await frozen.ask("join", behind) == "waiting"
    other = asyncio.create_task(process(max_concurrent=1).slot(client("c")).__aenter__())
    await waiting(killed, 2)
    monkeypatch.setattr(leases, "LEASE_S", 0.5)
    monkeypatch.setattr(leases, "PATIENCE_S", 0.5)
    await killed.ask("renew", held)
    await frozen.ask("poll", behind)  # and nothing is heard of them again
    lease = await asyncio.wait_for(other, 20)
    await waiting(killed, 0)
    await lease.__aexit__()


async def test_a_long_answer_keeps_its_slot(
    process: Process, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.05)
    queue = process(max_concurrent=1)
    async with queue.slot(client("a")) as own:
        other = asyncio.create_task(process(max_concurrent=1).slot(client("b")).__aenter__())
        await waiting(queue, 1)
        for _ in range(3):
            before = await end_of(queue, own)
            async with asyncio.timeout(20):
                while await end_of(queue, own) <= before:
                    await asyncio.sleep(0.01)
        assert not other.done()
    lease = await asyncio.wait_for(other, 10)
    await lease.__aexit__()
    assert not caplog.records


async def test_a_restarted_store_learns_again_who_holds_and_who_waits(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.05)
    probe = process()
    async with process(max_concurrent=1).slot(client("a")):
        await probe._script.registered_client.flushall()
        await members(probe, "held", 1)
        other = asyncio.create_task(process(max_concurrent=1).slot(client("b")).__aenter__())
        await members(probe, "waiting", 1)
    lease = await asyncio.wait_for(other, 10)
    third = asyncio.create_task(process(max_concurrent=1).slot(client("c")).__aenter__())
    await members(probe, "waiting", 1)
    await probe._script.registered_client.flushall()
    await lease.__aexit__()
    lease = await asyncio.wait_for(third, 10)
    await lease.__aexit__()
    await members(probe, "held", 0)


@pytest.mark.parametrize("returns", ["as it was", "empty"])
async def test_a_store_that_goes_away_and_returns_has_every_slot_kept(
    process: Process, redis: RedisServer, monkeypatch: pytest.MonkeyPatch, returns: str
) -> None:
    monkeypatch.setattr(leases, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(leases, "STORE_RETRY_S", 0.2)
    monkeypatch.setattr(leases, "RENEW_S", 0.2)
    monkeypatch.setattr(leases, "OUTAGE_S", 60)
    monkeypatch.setattr(leases, "SETTLE_S", 3)
    hall, function = Hall(process), {"max_concurrent": 1, "aws_lambda_function_name": "chat"}
    tasks = [asyncio.create_task(hall.request("a", **function))]
    await hall.served_so_far(1)
    tasks += [asyncio.create_task(hall.request(name, **function)) for name in "bcde"]
    await waiting(process(), 4)
    usual_s = leases.LEASE_S
    monkeypatch.setattr(leases, "LEASE_S", 0.5)
    async with asyncio.timeout(20):
        while await end_of(hall.queues[0], hall.leases[0]) > time.time() + 0.5:
            await asyncio.sleep(0.01)
    if returns == "empty":
        redis.stop()
    else:
        redis.signal(signal.SIGSTOP)
    async with asyncio.timeout(20):
        while not all(queue._down_since for queue in hall.queues):
            await asyncio.sleep(0.01)
    await asyncio.sleep(2 * leases.LEASE_S)  # what was leased would have ended
    assert hall.running == 1
    if returns == "empty":
        redis.start()
    else:
        redis.signal(signal.SIGCONT)
    await members(process(), "held", 1)
    monkeypatch.setattr(leases, "LEASE_S", usual_s)
    await waiting(process(), 4)
    for count in range(2, 6):
        assert hall.running == 1
        hall.finish()
        await hall.served_so_far(count)
    hall.finish()
    await asyncio.gather(*tasks)
    assert hall.most == 1


async def test_a_store_that_is_far_away_counts_from_the_first_request_on(
    process: Process, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "TIMEOUT_S", TIMEOUT_S)
    async with slow_link(redis.port, 0.08) as port:
        far = process(rate_limit_storage=f"redis://127.0.0.1:{port}")
        async with far.slot(client("a")):
            assert far.local.running == 0
            await members(process(), "held", 1)


async def test_a_function_has_no_slot_without_the_store(
    process: Process, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "OUTAGE_S", 1)
    monkeypatch.setattr(leases, "STORE_RETRY_S", 0.01)
    redis.stop()
    queue = process(aws_lambda_function_name="chat")
    for _ in range(2):
        with pytest.raises(RateLimiterDown, match="the store that counts them is down") as refused:
            await queue.slot(client("a")).__aenter__()
        assert int(refused.value.headers["retry-after"]) > 0
    assert (queue.running, queue.waiting, queue.local.running) == (0, 0, 0)
    redis.start()
    async with queue.slot(client("a")):
        await members(queue, "held", 1)


async def test_a_new_store_waits_for_the_holders_of_slots(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, newcomer = process(max_concurrent=1), process(max_concurrent=1)
    lease = holder.slot(client("a"))
    await lease.__aenter__()
    monkeypatch.setattr(leases, "SETTLE_S", 2)
    await holder._script.registered_client.flushall()
    assert await newcomer.ask("join", newcomer.slot(client("b"))) == "waiting"
    assert await holder.ask("renew", lease) == "held"
    await members(newcomer, "held", 1)
    await lease.__aexit__()


async def test_without_the_store_each_process_counts_alone(
    process: Process,
    redis: RedisServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases, "OUTAGE_S", 0.5)
    redis.stop()
    queue = process(max_concurrent=1)
    with caplog.at_level(logging.WARNING):
        async with queue.slot(client("a")):
            second = asyncio.create_task(queue.slot(client("b")).__aenter__())
            await asyncio.wait({second}, timeout=1)
            assert not second.done()
        lease = await asyncio.wait_for(second, 10)
    await lease.__aexit__()
    assert queue.running == queue.local.running == 0
    (record,) = caplog.records
    assert "RATE_LIMIT_STORAGE is down" in record.getMessage()


async def test_without_the_store_requests_are_refused_if_so_configured(
    process: Process, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "OUTAGE_S", 0.5)
    redis.stop()
    queue = process(rate_limit_fail_closed=True)
    with pytest.raises(RateLimiterDown) as refused:
        await queue.slot(client("a")).__aenter__()
    assert refused.value.headers["retry-after"] == "1"
    redis.start()


async def test_a_hung_store_delays_a_request_by_little(
    process: Process, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = process()
    async with queue.slot(client("a")):
        pass
    monkeypatch.setattr(leases, "TIMEOUT_S", 0.1)
    monkeypatch.setattr(leases, "OUTAGE_S", 0.1)
    monkeypatch.setattr(leases, "STORE_RETRY_S", 0.1)
    redis.signal(signal.SIGSTOP)
    started = time.monotonic()
    for _ in range(3):
        async with queue.slot(client("a")):
            pass
    assert time.monotonic() - started < 10
    redis.signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("values", "shared"),
    [
        ({}, False),
        ({"rate_limit_storage": "memory://", "share_queue": "always"}, False),
        ({"aws_lambda_function_name": "chat"}, True),
        ({"aws_lambda_function_name": "chat", "share_queue": "never"}, False),
        ({"share_queue": "always"}, True),
    ],
)
async def test_functions_share_a_queue_and_processes_if_asked_to(
    values: dict[str, Any], shared: bool
) -> None:
    settings = Settings(**{"rate_limit_storage": "redis://localhost", **values})
    queue = create_app([], settings).assembled.state.queue
    assert isinstance(queue, LeasedQueue if shared else FairQueue)
