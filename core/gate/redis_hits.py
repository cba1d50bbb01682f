"""Moving windows in Redis or Valkey, shared by all processes and hosts that use it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from limits.errors import StorageError
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import RedisError

from core.gate.hits import Quota, Rate, StoreDown

TIMEOUT_S = 0.5
"""How long the store may delay a request."""
FUNCTION_TIMEOUT_S = 2.0
"""The same for a function, whose first request connects: that takes eight round trips over TLS."""
_MAX_CONNECTIONS = 16


class RedisStore:
    """Counts as `MemoryStore` does; every call may raise `StoreDown`."""

    def __init__(self, url: str, *, is_function: bool) -> None:
        """Connect to the server at `url` on first use."""
        self._is_function = is_function
        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_MAX_CONNECTIONS,
            timeout=self._timeout_s,
            socket_connect_timeout=self._timeout_s / 2,
            socket_timeout=self._timeout_s / 2,
            # Redis may have restarted since. A time-out has taken long enough already.
            retry=Retry(NoBackoff(), 1, supported_errors=(Disconnected,)),
        )
        storage = RedisStorage(
            "redis://",  # selects the protocol only: the pool has the real URL
            wrap_exceptions=True,
            implementation="redispy",
            key_prefix="ollama-web-api",
            connection_pool=self._pool,  # type: ignore[arg-type] # documented, not annotated
        )
        self._limiter = MovingWindowRateLimiter(storage)
        self._redis = Redis(connection_pool=self._pool)

    async def hit(self, key: str, rate: Rate) -> Quota:
        """Count a hit of `key`, if `rate` allows it."""
        item = RateLimitItemPerSecond(rate.amount, rate.window_s)
        async with _bounded(self._timeout_s):
            allowed = await self._limiter.hit(item, key)
            window = await self._limiter.get_window_stats(item, key)
        return Quota(allowed, window.remaining, window.reset_time - time.time())

    async def spend(self, key: str, expires_s: int, amount: int) -> int:
        """Add `amount` to a sum that is forgotten after `expires_s`, and return the sum."""
        # Adds even 0: a full or read-only store can be read, but would not count the answer.
        name = f"ollama-web-api:{key}"
        async with _bounded(self._timeout_s), self._redis.pipeline() as pipeline:
            pipeline.incrby(name, amount)
            pipeline.expire(name, expires_s)
            return int((await pipeline.execute())[0])

    async def aclose(self) -> None:
        """Close the connections."""
        await self._pool.aclose()

    @property
    def _timeout_s(self) -> float:
        return FUNCTION_TIMEOUT_S if self._is_function else TIMEOUT_S


@asynccontextmanager
async def _bounded(timeout_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except (StorageError, RedisError) as error:
        raise StoreDown(str(error)) from error
    except TimeoutError:
        raise StoreDown(f"no answer within {timeout_s:g} seconds") from None
