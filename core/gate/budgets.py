"""Token budgets: how many tokens one caller may use in a day, an hour or a minute."""

import time
from typing import NamedTuple, Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

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


class BudgetMiddleware:
    """Refuses a caller whose tokens are used up, and counts what each answer has cost.

    Ollama reports an answer's tokens only at its end, so answers that run at the same time may
    exceed a budget together. A stream that is not read to its end costs the tokens sent so far:
    otherwise it would be free to all who leave before the last line. The headers are those of
    draft-ietf-httpapi-ratelimit-headers-11, as a second policy.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limiter: RateLimiter,
        default: str,
        keeper: BudgetKeeper | None = None,
    ) -> None:
        """Give callers without a key `default`, such as `200000/day` or `off`."""
        self.app = app
        self.limiter = limiter
        self.default = default
        self.keeper = keeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application on a request within the budget of its caller.

        Raises:
            QuotaExceeded: the budget is used up.
            RateLimiterDown: it cannot be looked up, and RATE_LIMIT_FAIL_CLOSED is set.
        """
        rate = self._rate(scope)
        if not rate:
            await self.app(scope, receive, send)
            return
        record = Record.of(scope)
        window = Window.of(Caller.of(scope), rate)
        spent = await self.limiter.spend(window.key, window.reset_s, 0)
        if spent is not None:
            record.answer_headers += _headers(window, spent)
            if spent >= rate.amount:
                raise QuotaExceeded(rate.amount, window.reset_s)
        try:
            await self.app(scope, receive, send)
        finally:
            if cost := record.prompt_tokens + record.tokens:
                await self._spend(window, cost)

    async def _spend(self, window: Window, cost: int) -> None:
        spent = await self.limiter.spend(window.key, window.reset_s, cost, must=False)
        if self.keeper and spent is not None:
            self.keeper.keep_spent(window.key, window.start + window.rate.window_s, spent)

    def _rate(self, scope: Scope) -> Rate | None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return None
        caller = Caller.of(scope)
        has_key = caller.id.startswith("key:")
        return parse_rate((caller.tokens or "off") if has_key else self.default)


def _headers(window: Window, spent: int) -> list[tuple[bytes, bytes]]:
    amount, window_s = window.rate
    left = max(0, amount - spent)
    return [
        (b"ratelimit-policy", f'"tokens";q={amount};w={window_s};qu="tokens"'.encode()),
        (b"ratelimit", f'"tokens";r={left};t={window.reset_s}'.encode()),
    ]
