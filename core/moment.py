"""Timeouts that rarely fire: one timer serves all that start within the same moment.

Setting and cancelling a timer took a fiftieth of a plain chat's time, and a chat had three.
"""

import asyncio
import threading
from collections.abc import Callable

MOMENT_S = 0.01
"""A callback is due after at least this time, and at most twice as long."""


class _Moments:
    """The callbacks of one event loop: those of this moment, and those of the one before."""

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
                text = "A delayed callback failed"
                self.loop.call_exception_handler({"message": text, "exception": error})


class _Current(threading.local):
    """The moments of the event loop that last used this module in this thread."""

    moments: _Moments | None = None


_current = _Current()


def unless_over(callback: Callable[[], object]) -> None:
    """Call `callback` in a moment, unless `over(callback)` is called first."""
    loop = asyncio.get_running_loop()
    moments = _current.moments
    if moments is None or moments.loop is not loop:
        moments = _current.moments = _Moments(loop)
    moments.new[callback] = None
    moments.run()


def over(callback: Callable[[], object]) -> None:
    """Cancel `callback`; if it was called already, do nothing."""
    if moments := _current.moments:
        moments.new.pop(callback, None)
        moments.old.pop(callback, None)
