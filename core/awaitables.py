"""What can be awaited without making a coroutine each time."""

import asyncio
from collections.abc import Generator

from core.moment import running_loop

MAX_TOGETHER = 64
"""How many tasks of a cohort go on at once: what more of them need fits into no cache."""


class _Done:
    def __await__(self) -> Generator[None]:
        return iter(())  # type: ignore[return-value] # cheaper than a generator


DONE = _Done()
"""For a function that has nothing to wait for, and whose result is awaited."""


class Cohort:
    """Tasks that wait until no more of them come, and go on together.

    A chat runs through more code than the CPU's caches hold. Where many run it step by step, each
    step is loaded once for all of them.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[asyncio.Future[None]] = []

    def join(self) -> asyncio.Future[None]:
        """Return what to await: a round of the event loop, or more while each brings others."""
        loop = running_loop()
        if loop is not self._loop:
            self._loop, self._waiting = loop, []  # nobody returns to a loop that has ended
        future = loop.create_future()
        self._waiting.append(future)
        if len(self._waiting) == 1:
            loop.call_soon(self._go_on, loop, 1)
        return future

    def _go_on(self, loop: asyncio.AbstractEventLoop, joined: int) -> None:
        if joined < len(self._waiting) < MAX_TOGETHER:
            loop.call_soon(self._go_on, loop, len(self._waiting))
            return
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():  # its task may have been cancelled
                future.set_result(None)
