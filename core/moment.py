"""What is to happen unless something ends within a moment: one timer serves all that begins in it.

A timer of its own, which is set and cancelled, was a fiftieth of a plain chat; a chat had three.
"""

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

MOMENT_S = 0.01
"""What lasts for so long, and at most for twice as long, is slow."""


class _Moments:
    """The callbacks of one event loop, by the moment in which they were added."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.new = dict[Callable[[], object], None]()
        self.old = dict[Callable[[], object], None]()
        self._is_running = False

    def run(self) -> None:
        if not self._is_running:
            self._is_running = True
            self.loop.call_later(MOMENT_S, self._tick)

    def _tick(self) -> None:
        self._is_running = False
        slow, self.old, self.new = self.old, self.new, {}
        if self.old:
            self.run()
        for callback in slow:
            try:
                callback()
            except Exception as error:
                text = "A callback failed that was due after a moment"
                self.loop.call_exception_handler({"message": text, "exception": error})


class _Current(threading.local):
    """The moments of the event loop that runs in this thread, if it is the last that ran there."""

    moments: _Moments | None = None


_current = _Current()


def unless_over(callback: Callable[[], object]) -> None:
    """Call `callback` in a moment, unless it is over by then."""
    loop = asyncio.get_running_loop()
    moments = _current.moments
    if moments is None or moments.loop is not loop:
        moments = _current.moments = _Moments(loop)
    moments.new[callback] = None
    moments.run()


def over(callback: Callable[[], object]) -> None:
    """Do not call `callback`; it does not matter if that has happened already."""
    if moments := _current.moments:
        moments.new.pop(callback, None)
        moments.old.pop(callback, None)


class Timeout:
    """`async with` like `asyncio.timeout`, for what hardly ever takes long."""

    def __init__(self, seconds: float) -> None:
        """Raise TimeoutError in the block after `seconds`."""
        self._at = asyncio.get_running_loop().time() + seconds
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        unless_over(self._start)
        return self

    async def __aexit__(
        self,
        class_: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        over(self._start)
        await self._timeout.__aexit__(class_, error, trace)

    def restart(self, seconds: float) -> None:
        """Have it end in `seconds` from now."""
        self._at = asyncio.get_running_loop().time() + seconds
        if self._timeout.when() is not None:
            self._start()

    def _start(self) -> None:
        self._timeout.reschedule(self._at)
