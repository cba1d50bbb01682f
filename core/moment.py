"""Timeouts, most of which never fire, without a timer for each.

Setting and cancelling a timer took a fiftieth of a plain chat's time, and a chat had three. Each of
an open stream's timers took 750 bytes.
"""

import asyncio
import threading
from time import monotonic
from typing import Protocol

MOMENT_S = 0.01
"""What takes a moment is late after at least this time, and at most twice as long."""
_TICK_S = 0.001
"""A timer of uvloop may fire this much too early."""
_PAUSE_S = 0.05
"""The least time between two looks at all that is due: of thousands, each takes a millisecond."""


class Event(Protocol):
    """Something that may be late."""

    def late(self) -> None:
        """Act on being late."""


class _Events:
    """The events of one event loop that are not over."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.new = dict[Event, None]()
        """Those that began in this moment."""
        self.old = dict[Event, None]()
        """Those that began in the one before."""
        self.due = dict[Event, float]()
        """Those that are late at a certain time."""
        self.is_ticking = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def run(self) -> None:
        self.is_ticking = True
        self.loop.call_later(MOMENT_S, self._tick)

    def _tick(self) -> None:
        self.is_ticking = False
        late, self.old, self.new = self.old, self.new, {}
        if self.old:
            self.run()
        self._call(late)

    def call_at(self, time: float) -> None:
        """Look at `due` at `time`, or earlier."""
        if self._timer:
            if self._timer_at <= time:
                return
            self._timer.cancel()
        self._timer_at = time
        self._timer = self.loop.call_later(max(0.0, time - monotonic()) + _TICK_S, self._look)

    def _look(self) -> None:
        self._timer = None
        now = monotonic()
        late = {event: None for event, time in self.due.items() if time <= now}
        for event in late:
            del self.due[event]
        self._call(late)
        if self.due:
            self.call_at(max(min(self.due.values()), now + _PAUSE_S))

    def _call(self, late: dict[Event, None]) -> None:
        for event in late:
            try:
                event.late()
            except Exception as error:
                text = "Acting on a late event failed"
                self.loop.call_exception_handler({"message": text, "exception": error})


class _Current(threading.local):
    """The events of the event loop that last used this module in this thread."""

    events: _Events | None = None


_current = _Current()


def begin(event: Event) -> None:
    """Call `event.late()` in a moment, unless `over(event)` is called first."""
    events = _events()
    events.new[event] = None
    if not events.is_ticking:
        events.run()


def at(time: float, event: Event) -> None:
    """Call `event.late()` at `time`, by `time.monotonic`, unless `over(event)` is called first.

    It replaces an earlier `time` for the same event.
    """
    events = _events()
    events.due[event] = time
    events.call_at(time)


def over(event: Event) -> None:
    """Forget `event`; if there is nothing to forget, do nothing."""
    if events := _current.events:
        events.new.pop(event, None)
        events.old.pop(event, None)
        events.due.pop(event, None)


def running_loop() -> asyncio.AbstractEventLoop:
    """Return what `asyncio.get_running_loop` does, without the system call that it makes."""
    return _events().loop


def _events() -> _Events:
    events = _current.events
    if events is None or not events.loop.is_running():  # only one can be running in a thread
        events = _current.events = _Events(asyncio.get_running_loop())
    return events
