"""What can be awaited without making a coroutine each time; tasks that go on together."""

import asyncio
from collections.abc import Generator

from core.moment import running_loop

ROUNDS = 3
"""How many rounds of the event loop a cohort waits at most: with busy streams, one takes long."""
ENOUGH = 64
"""How many are enough for a cohort: what more of them need fits into no cache."""


class _Done:
    def __await__(self) -> Generator[None]:
        return iter(())  # type: ignore[return-value] # cheaper than a generator


DONE = _Done()
"""For a function that has nothing to wait for, and whose result is awaited."""


class Cohort:
    """Tasks that wait a little for more of them, and go on together.

    A chat runs through more code than the CPU's caches hold. Where many run it step by step, each
    step is loaded once for all of them.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[asyncio.Future[None]] = []

    def join(self) -> asyncio.Future[None]:
        """Return what to await: one round of the event loop, or up to ROUNDS if others come."""
        loop = running_loop()
        if loop is not self._loop:
            self._loop, self._waiting = loop, []  # nobody returns to a loop that has ended
        future = loop.create_future()
        self._waiting.append(future)
        if len(self._waiting) == 1:
            loop.call_soon(self._end_round, loop, 1, 1)
        return future

    def _end_round(self, loop: asyncio.AbstractEventLoop, number: int, joined: int) -> None:
        if number < ROUNDS and joined < len(self._waiting) < ENOUGH:
            loop.call_soon(self._end_round, loop, number + 1, len(self._waiting))
            return
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():  # its task may have been cancelled
                future.set_result(None)
