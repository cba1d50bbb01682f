"""What is to happen unless something ends within a moment: one timer serves all that begins in it.

A timer of its own, which is set and cancelled, was a fiftieth of a plain chat; a chat had three.
"""

import asyncio
import threading
from collections.abc import Callable

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
