import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from core.chat.queue import ASSUMED_SERVICE_S, FairQueue
from core.context import Caller
from core.contract.retryable import QueueFull
from core.settings.schema import Settings


def client(name: str, concurrent: int | None = None) -> Caller:
    return Caller(id=f"key:{name}", name=name, address="192.0.2.1", concurrent=concurrent)


class Crash(Exception):
    """A request fails while it holds a slot."""


class Crowd:
    """Client requests to one queue, each lasting as long as the test wants."""

    def __init__(self, **values: Any) -> None:
        self.queue = FairQueue(Settings(**values))
        self.served: list[str] = []
        self.all: dict[asyncio.Task[float], str] = {}
        self.inside: dict[asyncio.Task[float], asyncio.Future[None]] = {}

    def join(self, name: str, concurrent: int | None = None) -> asyncio.Task[float]:
        task = asyncio.create_task(self._request(client(name, concurrent)))
        self.all[task] = name
        task.add_done_callback(self.all.pop)
        return task

    async def _request(self, client: Caller) -> float:
        task = asyncio.current_task()
        assert task
        async with self.queue.slot(client) as slot:
            self.served.append(client.name)
            end = self.inside[task] = asyncio.get_running_loop().create_future()
            try:
                await end
            finally:
                del self.inside[task]
        return slot.queued_s

    def running(self) -> list[str]:
        return [self.all[task] for task in self.inside]

    async def finish(self) -> None:
        """End the longest-running request and let the next one start."""
        next(iter(self.inside.values())).set_result(None)
        await settle()

    async def finish_all(self) -> None:
        while self.inside:
            await self.finish()


async def settle() -> None:
    """Let every task run until it blocks."""
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def crowd(**values: Any) -> AsyncIterator[Crowd]:
    crowd = Crowd(**values)
    yield crowd
    await crowd.finish_all()
    assert (crowd.queue.running, crowd.queue.waiting) == (0, 0)


async def test_a_free_slot_is_taken_without_waiting() -> None:
    queue = FairQueue(Settings(max_concurrent=2))
    entering = queue.slot(client("page")).__aenter__()
    with pytest.raises(StopIteration) as stopped:  # at once: the coroutine never suspends
        entering.send(None)
    slot = stopped.value.value
    assert (queue.running, queue.waiting, slot.queued_s) == (1, 0, 0)
    await slot.__aexit__(None, None, None)
    assert queue.running == 0


async def test_a_failed_request_releases_its_slot() -> None:
    queue = FairQueue(Settings())
    with pytest.raises(ZeroDivisionError):
        async with queue.slot(client("page")):
            raise ZeroDivisionError
    assert queue.running == 0


async def test_one_clients_requests_are_served_in_order_and_report_their_wait() -> None:
    async with crowd(max_concurrent=1) as requests:
        first, second, third = (requests.join("script") for _ in range(3))
        await settle()
        assert (requests.queue.running, requests.queue.waiting) == (1, 2)
        await asyncio.sleep(0.05)
        await requests.finish()
        assert (first.done(), list(requests.inside)) == (True, [second])
        await asyncio.sleep(0.05)
        await requests.finish()
        assert list(requests.inside) == [third]
        await requests.finish()
        assert first.result() == 0
        assert second.result() > 0.04
        assert third.result() > 0.09


async def test_a_script_with_60_requests_does_not_hold_up_another_client() -> None:
    async with crowd(max_concurrent=4) as requests:
        for _ in range(60):
            requests.join("script")
        await settle()
        assert len(requests.inside) == 4, "a lone client gets all slots"
        requests.join("page")
        await settle()
        await requests.finish()
        await requests.finish()
        assert requests.served[4:] == ["script", "page"]


async def test_clients_take_turns() -> None:
    async with crowd(max_concurrent=1) as requests:
        for name in "aaaabbc":
            requests.join(name)
        await settle()
        await requests.finish_all()
        assert "".join(requests.served) == "aabcaba"


@pytest.mark.parametrize("own", [False, True], ids=["setting", "key"])
async def test_a_client_at_its_own_limit_is_skipped(own: bool) -> None:
    async with crowd(max_concurrent=3, max_concurrent_per_client=3 if own else 1) as requests:
        limit = 1 if own else None
        for _ in range(3):
            requests.join("script", limit)
        await settle()
        requests.join("page", limit)
        await settle()
        assert requests.running() == ["script", "page"]
        assert requests.queue.waiting == 2
        await requests.finish()
        assert requests.running() == ["page", "script"]


async def test_a_keys_limit_may_exceed_the_setting() -> None:
    async with crowd(max_concurrent=3, max_concurrent_per_client=1) as requests:
        for _ in range(4):
            requests.join("script", concurrent=2)
        await settle()
        assert len(requests.inside) == 2


async def test_a_full_queue_refuses_at_once_and_says_when_to_retry() -> None:
    async with crowd(max_concurrent=2, max_queue=3) as requests:
        for _ in range(5):
            requests.join("script")
        await settle()
        refused = requests.join("script")
        with pytest.raises(QueueFull, match="3 requests wait for 2 slots") as caught:
            await refused
        assert caught.value.status == 503
        assert caught.value.headers == {"retry-after": f"{4 * ASSUMED_SERVICE_S / 2:.0f}"}
        assert "Try again in 10 seconds" in str(caught.value)
        assert requests.queue.waiting == 3


async def test_without_waiting_places_only_a_free_slot_admits() -> None:
    async with crowd(max_concurrent=1, max_queue=0) as requests:
        requests.join("script")
        with pytest.raises(QueueFull):
            await requests.join("page")


async def test_retry_after_tracks_service_times() -> None:
    async with crowd(max_concurrent=1, max_queue=0) as requests:
        for _ in range(40):
            requests.join("script")
            await settle()
            await requests.finish()
        requests.join("script")
        with pytest.raises(QueueFull) as caught:
            await requests.join("page")
        assert caught.value.headers == {"retry-after": "1"}


async def test_retry_after_learns_from_requests_that_are_still_running() -> None:
    async with crowd(max_concurrent=2, max_queue=0) as requests:
        for client in ("script", "page"):
            requests.join(client)
        await settle()
        for slot in requests.queue._running:
            slot.started_at -= 60  # a stall
        with pytest.raises(QueueFull) as caught:
            await requests.join("other")
        assert 30 <= int(caught.value.headers["retry-after"]) <= 31


async def test_a_client_that_fills_the_queue_yields_a_place_to_one_without() -> None:
    async with crowd(max_concurrent=1, max_queue=3) as requests:
        script = [requests.join("script") for _ in range(4)]
        await settle()
        requests.join("page")
        with pytest.raises(QueueFull):
            await script[-1]
        requests.join("page").add_done_callback(lambda refused: refused.exception())
        await settle()
        assert requests.queue.waiting == 3, (
            "the page's two requests get only their fair share of one place"
        )
        await requests.finish_all()
        assert requests.served == ["script", "script", "page", "script"]


async def test_a_wait_that_times_out_has_its_own_error() -> None:
    async with crowd(max_concurrent=1, queue_timeout_s=0.02) as requests:
        requests.join("script")
        with pytest.raises(QueueFull, match=r"No slot became free within 0\.02 seconds"):
            await requests.join("page")
        assert (requests.queue.running, requests.queue.waiting) == (1, 0)


async def test_a_waiter_whose_client_disconnects_is_never_served() -> None:
    async with crowd(max_concurrent=1) as requests:
        requests.join("script")
        leaving, staying = requests.join("a"), requests.join("b")
        await settle()
        leaving.cancel()
        await settle()
        assert (leaving.cancelled(), requests.queue.waiting) == (True, 1)
        await requests.finish()
        assert list(requests.inside) == [staying]


async def test_a_slot_granted_to_a_task_being_cancelled_is_passed_on() -> None:
    async with crowd(max_concurrent=1) as requests:
        held = await requests.queue.slot(client("script")).__aenter__()
        leaving, staying = requests.join("a"), requests.join("b")
        await settle()
        await held.__aexit__(None, None, None)
        leaving.cancel()  # it already owns its slot
        assert requests.queue.running == 1
        await settle()
        assert leaving.cancelled()
        assert list(requests.inside) == [staying]


async def test_a_slot_is_not_granted_to_a_task_that_was_just_cancelled() -> None:
    async with crowd(max_concurrent=1) as requests:
        held = await requests.queue.slot(client("script")).__aenter__()
        leaving, staying = requests.join("a"), requests.join("a")
        await settle()
        leaving.cancel()
        await held.__aexit__(None, None, None)
        await settle()
        assert leaving.cancelled()
        assert list(requests.inside) == [staying]


async def test_a_waiter_cancelled_while_being_refused_leaves_no_trace() -> None:
    async with crowd(max_concurrent=1, max_queue=2) as requests:
        script = [requests.join("script") for _ in range(3)]
        await settle()
        newcomer = requests.join("page")
        await asyncio.sleep(0)
        script[-1].cancel()
        await settle()
        assert script[-1].cancelled()
        assert not newcomer.done()


@pytest.mark.parametrize("seed", range(10))
async def test_no_client_is_served_twice_while_another_waits(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    async with crowd(max_concurrent=chance.randint(1, 3), max_queue=200) as requests:
        served_since: dict[str, Counter[str]] = {}  # for each waiting client
        for _ in range(400):
            if chance.random() < 0.6 and requests.queue.waiting < 100:
                requests.join(chance.choice("aaaaabcd"))
                await settle()
                requests.served.clear()  # at once: no client was skipped
            elif requests.inside:
                await requests.finish()
            waiting = {name for task, name in requests.all.items() if task not in requests.inside}
            for name in requests.served:
                served_since.pop(name, None)
                for others in served_since.values():
                    others[name] += 1
            requests.served.clear()
            served_since = {name: served_since.get(name, Counter()) for name in waiting}
            assert all(count == 1 for others in served_since.values() for count in others.values())


class Storm(Crowd):
    """A crowd in which everything happens at random and is checked."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(
            max_concurrent=chance.randint(1, 4),
            max_queue=chance.randint(0, 12),
            max_concurrent_per_client=chance.choice([0, 0, 1, 3]),
            queue_timeout_s=2,
        )
        self.limits = {"a": None, "b": 1, "c": 2, "d": None, "e": 0}
        self.chance = chance
        self.now_s = 0.0
        self.outcomes = Counter[str]()

    async def act(self) -> None:
        """Do one random thing, whose effects may still be in progress at the next one."""
        actions = ["join", "finish", "crash", "leave", "wait", "settle", "go on"]
        match self.chance.choices(actions, [9, 5, 1, 3, 0.1, 3, 9])[0]:
            case "join":
                name = self.chance.choice("aaabcde")
                self.join(name, self.limits[name]).add_done_callback(self.count)
            case "finish" if end := self.any_end():
                end.set_result(None)
            case "crash" if end := self.any_end():
                end.set_exception(Crash)
            case "leave" if self.all:
                self.chance.choice(list(self.all)).cancel()
            case "wait":
                self.now_s += 3
            case "settle":
                await settle()
                self.check_that_no_slot_is_idle()
            case "go on":
                await asyncio.sleep(0)
        self.check_bounds()

    def any_end(self) -> asyncio.Future[None] | None:
        ends = [end for end in self.inside.values() if not end.done()]
        return self.chance.choice(ends) if ends else None

    def count(self, task: asyncio.Task[float]) -> None:
        self.outcomes["left" if task.cancelled() else type(task.exception()).__name__] += 1

    def limit(self, name: str) -> int:
        own = self.limits[name]
        return (self.queue.max_per_client if own is None else own) or self.queue.max_concurrent

    def check_bounds(self) -> None:
        assert len(self.inside) <= self.queue.running <= self.queue.max_concurrent
        assert self.queue.waiting <= self.queue.max_waiting
        assert all(n <= self.limit(name) for name, n in Counter(self.running()).items())

    def check_that_no_slot_is_idle(self) -> None:
        waiting = [name for task, name in self.all.items() if task not in self.inside]
        assert (self.queue.running, self.queue.waiting) == (len(self.inside), len(waiting))
        if self.queue.running < self.queue.max_concurrent:
            running = Counter(self.running())
            assert all(running[name] >= self.limit(name) for name in waiting)


@pytest.mark.parametrize("seed", range(10))
async def test_random_events_lose_no_slot_and_no_waiter(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    storm = Storm(random.Random(seed))  # noqa: S311
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: storm.now_s)
    for _ in range(2000):
        await storm.act()
    await settle()
    while storm.all:
        storm.check_that_no_slot_is_idle()
        await storm.finish()
    assert (storm.queue.running, storm.queue.waiting) == (0, 0)
    assert set(storm.outcomes) == {"NoneType", "QueueFull", "Crash", "left"}
