"""Token budgets: how many tokens one caller may use in a day, an hour or a minute."""

import time
from collections.abc import Awaitable
from functools import partial
from typing import NamedTuple, Protocol

from starlette.types import Scope

from core.context import Caller, Record
from core.contract.retryable import QuotaExceeded
from core.gate.hits import Rate
from core.gate.rates import RateLimiter, parse_rate


class Window(NamedTuple):
    """The current window of a budget; windows begin at multiples of their length, in UTC."""

    key: str
    rate: Rate
    start: int
    """Seconds since 1970."""

    @classmethod
    def of(cls, caller: Caller, rate: Rate) -> "Window":
        """Return the window that is open now."""
        start = int(time.time()) // rate.window_s * rate.window_s
        return cls(f"tokens:{caller.id}:{rate.window_s}:{start}", rate, start)

    @property
    def reset_s(self) -> int:
        """Seconds until the next window."""
        return max(1, self.start + self.rate.window_s - int(time.time()))


class BudgetKeeper(Protocol):
    """What keeps budgets across restarts."""

    def keep_spent(self, key: str, end: int, spent: int) -> None:
        """Remember that `spent` tokens of a window are used, until its `end`."""


class Budget:
    """Refuses a caller whose tokens are used up, and counts what each answer has cost.

    Ollama reports an answer's tokens only at its end, so answers that run at the same time may
    exceed a budget together. A stream that is not read to its end costs the tokens sent so far:
    otherwise it would be free to all who leave before the last line. The headers are those of
    draft-ietf-httpapi-ratelimit-headers-11, as a second policy.
    """

    def __init__(self, *, limiter: RateLimiter, default: str, keeper: BudgetKeeper | None) -> None:
        """Run behind `Auth`; give callers without a key `default`, such as `200000/day`."""
        self.limiter = limiter
        self.default = default
        self.keeper = keeper

    def __call__(self, scope: Scope, record: Record) -> Awaitable[None] | None:
        """Check that the caller is within its budget.

        Raises:
            QuotaExceeded: the budget is used up.
            RateLimiterDown: it cannot be looked up, and RATE_LIMIT_FAIL_CLOSED is set.
        """
        if scope["method"] != "POST":
            return None
        caller = record.caller
        assert caller, "`Auth` has set it"
        has_key = caller.id.startswith("key:")
        rate = parse_rate((caller.tokens or "off") if has_key else self.default)
        return self._check(Window.of(caller, rate), record) if rate else None

    async def _check(self, window: Window, record: Record) -> None:
        spent = await self.limiter.spend(window.key, window.reset_s, 0)
        if spent is not None:
            record.answer_headers += _headers(window, spent)
            if spent >= window.rate.amount:
                raise QuotaExceeded(window.rate.amount, window.reset_s)
        record.settle = partial(self._settle, window)

    async def _settle(self, window: Window, record: Record) -> None:
        cost = record.prompt_tokens + record.tokens
        if not cost:
            return
        spent = await self.limiter.spend(window.key, window.reset_s, cost, must=False)
        if self.keeper and spent is not None:
            self.keeper.keep_spent(window.key, window.start + window.rate.window_s, spent)


def _headers(window: Window, spent: int) -> list[tuple[bytes, bytes]]:
    amount, window_s = window.rate
    left = max(0, amount - spent)
    return [
        (b"ratelimit-policy", f'"tokens";q={amount};w={window_s};qu="tokens"'.encode()),
        (b"ratelimit", f'"tokens";r={left};t={window.reset_s}'.encode()),
    ]
