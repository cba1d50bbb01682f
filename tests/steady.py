"""An event loop whose time stops while the machine does."""

import asyncio
import selectors
from time import monotonic

STEP_S = 0.05
"""As much counts of a step, and as long at most a loop waits before it looks at the time."""


class _Selector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.lost_s = 0.0
        self._seen_at = monotonic()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.look()
        wait_s = STEP_S if timeout is None else min(timeout, STEP_S)
        events = super().select(wait_s)
        self.look(max(0, wait_s))
        return events

    def look(self, expected_s: float = 0) -> None:
        """Count as lost what has passed since the last look beyond what may have."""
        now = monotonic()
        self.lost_s += max(0, now - self._seen_at - expected_s - STEP_S)
        self._seen_at = now


class SteadyLoop(asyncio.SelectorEventLoop):
    """An event loop in which a time limit does not end while what it limits cannot go on.

    On a busy machine, or one that is frozen for a while, a timeout of 0.2 s would end before a
    request has come as far as the test wants. Here it ends after 0.2 s in which the loop could run.
    """

    def __init__(self) -> None:
        self._steady = _Selector()
        super().__init__(self._steady)

    def time(self) -> float:
        """Return the time by this loop's own clock, in seconds."""
        self._steady.look()
        return super().time() - self._steady.lost_s
