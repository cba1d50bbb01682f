"""The queue in front of the GPU: bounded, and fair to every client."""

import asyncio
import math
from time import monotonic
from typing import Self

from core.context import Caller
from core.contract.retryable import QueueFull
from core.settings.schema import Settings

ASSUMED_SERVICE_S = 5.0
"""How long a request is assumed to take before any has been measured."""
_SMOOTHING = 0.1


class FairQueue:
    """Runs a bounded number of requests at once, and serves waiting clients in turn.

    Clients are served round-robin, and each client's requests in order of arrival. A client at
    its own limit is skipped. When the queue is full, a newcomer takes the last place of the client
    with the most, unless it would then have as many itself: no client can keep the others out.

    Use it from one event loop only.
    """

    def __init__(self, settings: Settings) -> None:
        self.max_concurrent = settings.max_concurrent
        self.max_waiting = settings.max_queue
        self.timeout_s = settings.queue_timeout_s
        self.max_per_client = settings.max_concurrent_per_client
        self._running: set[Slot] = set()
        self._running_of: dict[str, int] = {}  # by client
        self._lines: dict[str, dict[Slot, None]] = {}  # by client; the first is served next
        self._service_s = ASSUMED_SERVICE_S

    @property
    def running(self) -> int:
        """How many slots are in use."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many requests are waiting for a slot."""
        return sum(map(len, self._lines.values()))

    def slot(self, client: Caller) -> "Slot":
        """Return a slot for `client`; an `async with` waits for it and holds it."""
        limit = self.max_per_client if client.concurrent is None else client.concurrent
        return Slot(self, client.id, limit or self.max_concurrent)

    def start(self, slot: "Slot") -> bool:
        """Start `slot` if there is room for it, and return whether there was."""
        running = self._running_of.get(slot.client_id, 0)
        if running >= slot.limit or len(self._running) >= self.max_concurrent:
            return False
        self._running.add(slot)
        self._running_of[slot.client_id] = running + 1
        slot.started_at = monotonic()
        return True

    async def wait(self, slot: "Slot") -> None:
        """Wait until `slot` may be used; a failure or a cancellation leaves no trace.

        Raises:
            QueueFull: the queue is full, or its turn did not come within `timeout_s`.
        """
        self._make_room_for(slot)
        loop = asyncio.get_running_loop()
        slot.turn = loop.create_future()
        self._lines.setdefault(slot.client_id, {})[slot] = None
        timeout = f"No slot became free within {self.timeout_s:g} seconds"
        timer = loop.call_later(self.timeout_s, self._refuse, slot, timeout)
        joined_at = monotonic()
        try:
            await slot.turn
        except BaseException:
            if slot in self._running:  # cancelled when its turn had come, before it could resume
                self.release(slot)
            else:
                self._leave(slot)
            raise
        finally:
            timer.cancel()
            slot.queued_s = monotonic() - joined_at

    def release(self, slot: "Slot") -> None:
        """Release `slot`, and start whichever requests are next."""
        self._running.discard(slot)
        if left := self._running_of.pop(slot.client_id) - 1:
            self._running_of[slot.client_id] = left
        self._service_s += _SMOOTHING * (monotonic() - slot.started_at - self._service_s)
        while self._lines and (following := self._start_next()):
            self._leave(following)
            if line := self._lines.pop(following.client_id, None):
                self._lines[following.client_id] = line  # behind the other clients
            following.turn.set_result(None)

    def _start_next(self) -> "Slot | None":
        """Start and return the first slot that may run, looking at the front of each line."""
        for line in self._lines.values():
            # The task of a cancelled waiter removes it from its line when it resumes.
            slot = next((slot for slot in line if not slot.turn.done()), None)
            if slot and self.start(slot):
                return slot
        return None

    def _make_room_for(self, slot: "Slot") -> None:
        if self.waiting < self.max_waiting:
            return
        full = f"The queue is full: {self.waiting} requests wait for {self.max_concurrent} slots"
        longest = max(self._lines.values(), key=len, default={})
        if len(longest) <= len(self._lines.get(slot.client_id, ())) + 1:
            raise QueueFull(full, self._retry_after_s())
        self._refuse(next(reversed(longest)), full)

    def _refuse(self, slot: "Slot", problem: str) -> None:
        self._leave(slot)
        if not slot.turn.done():
            slot.turn.set_exception(QueueFull(problem, self._retry_after_s()))

    def _leave(self, slot: "Slot") -> None:
        line = self._lines.get(slot.client_id, {})
        line.pop(slot, None)
        if not line:
            self._lines.pop(slot.client_id, None)

    def _retry_after_s(self) -> int:
        """Estimate when all requests now waiting will have started, at the recent pace.

        A request that has been running for longer than usual will take at least that long.
        """
        now = monotonic()
        lengths_s = [max(self._service_s, now - slot.started_at) for slot in self._running]
        service_s = sum(lengths_s) / len(lengths_s) if lengths_s else self._service_s
        return max(1, math.ceil((self.waiting + 1) * service_s / self.max_concurrent))


class Slot:
    """Permission for one request to use Ollama, for the duration of an `async with`."""

    __slots__ = ("_queue", "client_id", "limit", "queued_s", "started_at", "turn")

    turn: asyncio.Future[None]
    started_at: float

    def __init__(self, queue: FairQueue, client_id: str, limit: int) -> None:
        self._queue = queue
        self.client_id = client_id
        self.limit = limit
        """How many slots its client may hold at once."""
        self.queued_s = 0.0
        """How long its request waited for it."""

    async def __aenter__(self) -> Self:
        if not self._queue.start(self):
            await self._queue.wait(self)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._queue.release(self)
