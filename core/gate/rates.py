"""Rate limits on requests per client, and on wrong credentials per address."""

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property, lru_cache
from time import monotonic
from typing import TypeVar

from starlette.types import Scope

from core.context import Record
from core.contract.retryable import RateLimited, RateLimiterDown
from core.gate.hits import MemoryStore, Quota, Rate, Store, StoreDown
from core.settings.schema import Settings

STORE_RETRY_S = 1
"""How long to wait before trying a failed store again."""
_UNITS_S = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}

_T = TypeVar("_T")
_logger = logging.getLogger(__name__)


@lru_cache(maxsize=1024)
def parse_rate(text: str) -> Rate | None:
    """Parse a `settings.Rate`, such as `60/minute`; None if it is `off`."""
    amount, _, unit = text.partition("/")
    return Rate(int(amount), _UNITS_S[unit]) if unit else None


class RateLimiter:
    """Counts hits in the store that RATE_LIMIT_STORAGE names.

    While the store is down nothing is counted, and everything is allowed or, with
    RATE_LIMIT_FAIL_CLOSED, refused. The start and the end of an outage are logged.
    """

    def __init__(self, settings: Settings, spent: Mapping[str, tuple[int, int]] = {}) -> None:
        """Defer importing and connecting to a store elsewhere until the first hit.

        Args:
            settings: where the store is.
            spent: for a store in memory, the sums from before a restart, each with the seconds
                for which it still counts.
        """
        self._url = settings.rate_limit_storage
        self._is_function = settings.is_function
        self.memory = MemoryStore(spent) if self._url == "memory://" else None
        """The store, if it is in memory: it never fails, and can be asked without waiting."""
        self._fail_closed = settings.rate_limit_fail_closed
        self._retry_at: float | None = None  # None: the store is up, as far as we know
        self.uncounted = 0
        """Hits since startup that went uncounted because the store was down."""

    @cached_property
    def _store(self) -> Store:
        if self.memory:
            return self.memory
        from core.gate.redis_hits import RedisStore  # noqa: PLC0415 - takes 0.1 s

        return RedisStore(self._url, is_function=self._is_function)

    async def hit(self, key: str, rate: Rate) -> Quota | None:
        """Count a hit of `key`, if `rate` allows it; None while the store is down.

        Raises:
            RateLimiterDown: it is down, and RATE_LIMIT_FAIL_CLOSED is set.
        """
        return await self._ask(lambda store: store.hit(key, rate), must=True)

    async def spend(
        self, key: str, expires_s: int, amount: int, *, must: bool = True
    ) -> int | None:
        """Add `amount` to the sum of `key`, and return the sum; None while the store is down.

        Raises:
            RateLimiterDown: it is down, RATE_LIMIT_FAIL_CLOSED is set, and `must` is true.
        """
        return await self._ask(lambda store: store.spend(key, expires_s, amount), must=must)

    async def _ask(self, ask: Callable[[Store], Awaitable[_T]], *, must: bool) -> _T | None:
        if self._retry_at is None or monotonic() >= self._retry_at:
            try:
                answer = await ask(self._store)
            except StoreDown as error:
                if self._retry_at is None:
                    fate = "refused" if self._fail_closed else "let through"
                    _logger.warning("RATE_LIMIT_STORAGE is down, requests are %s: %s", fate, error)
                self._retry_at = monotonic() + STORE_RETRY_S
            else:
                if self._retry_at is not None:
                    _logger.warning("RATE_LIMIT_STORAGE is up again")
                    self._retry_at = None
                return answer
        self.uncounted += 1
        if self._fail_closed and must:
            raise RateLimiterDown(
                "The rate limiter's store is down, so requests are refused", STORE_RETRY_S
            )
        return None

    async def aclose(self) -> None:
        """Close the connections to the store."""
        if "_store" in vars(self):
            await self._store.aclose()


class FailureLimiter:
    """Limits how often one address may send wrong credentials."""

    def __init__(self, limiter: RateLimiter, rate: str) -> None:
        """Allow `rate`, such as `10/minute` or `off`, as counted by `limiter`."""
        self._limiter = limiter
        self._rate = parse_rate(rate)

    async def hit(self, address: str) -> None:
        """Count a failure of `address`.

        Raises:
            RateLimited: there have been too many.
            RateLimiterDown: the store is down, and RATE_LIMIT_FAIL_CLOSED is set.
        """
        quota = self._rate and await self._limiter.hit(f"failures:{address}", self._rate)
        if quota and not quota.allowed:
            raise RateLimited(
                "Too many requests with wrong credentials from your address",
                _whole_seconds(quota.reset_s),
            )


class RateLimit:
    """Limits each client's requests, and reports in headers how many are left.

    Every request counts, even one that fails, except public ones and probes of MONITOR_CLIENTS.
    Each answer to a counted request carries the headers of
    draft-ietf-httpapi-ratelimit-headers-11.
    """

    def __init__(self, *, limiter: RateLimiter, rate: str) -> None:
        """Run behind `Auth`; `rate` applies to clients without a rate of their own."""
        self.limiter = limiter
        self.rate = rate

    def __call__(self, scope: Scope, record: Record) -> Awaitable[None] | None:
        """Count the request.

        Raises:
            RateLimited: the client has exceeded its rate.
            RateLimiterDown: the store is down, and RATE_LIMIT_FAIL_CLOSED is set.
        """
        if record.is_exempt:
            return None
        caller = record.caller
        assert caller, "`Auth` has set it"
        text = caller.rate or self.rate
        rate = parse_rate(text)
        if not rate:
            return None
        key = f"client:{caller.id}"
        if store := self.limiter.memory:
            _admit(record, text, rate, store.count(key, rate))
            return None
        return self._ask(record, text, rate, key)

    async def _ask(self, record: Record, text: str, rate: Rate, key: str) -> None:
        if quota := await self.limiter.hit(key, rate):
            _admit(record, text, rate, quota)


def _admit(record: Record, text: str, rate: Rate, quota: Quota) -> None:
    record.answer_headers += _headers(rate, quota)
    if not quota.allowed:
        raise RateLimited(f"Too many requests: your limit is {text}", _whole_seconds(quota.reset_s))


def _headers(rate: Rate, quota: Quota) -> list[tuple[bytes, bytes]]:
    left = b'"default";r=%d;t=%d' % (quota.remaining, _whole_seconds(quota.reset_s))
    return [_policy(rate), (b"ratelimit", left)]


@lru_cache(maxsize=1024)
def _policy(rate: Rate) -> tuple[bytes, bytes]:
    return b"ratelimit-policy", f'"default";q={rate.amount};w={rate.window_s}'.encode()


def _whole_seconds(seconds: float) -> int:
    """Round up, to at least one second."""
    return max(1, math.ceil(seconds))
