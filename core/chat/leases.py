"""The queue in front of the GPU for many processes: its slots are leases in Redis or Valkey.

AWS Lambda runs each request in its own process, so a queue inside one cannot bound them. A lease
expires by itself when its process is killed or frozen, and no longer renews it.
"""

import asyncio
import hashlib
import logging
import math
import secrets
from contextlib import suppress
from time import monotonic
from typing import Self

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from core.chat.lease_script import KEYS, SCRIPT
from core.chat.queue import ASSUMED_SERVICE_S, FairQueue, Slot
from core.context import Caller
from core.contract.retryable import QueueFull, RateLimiterDown
from core.settings.schema import Settings

LEASE_S = 15.0
"""How long a slot stays taken after its holder last renewed it."""
RENEW_S = 2.0
POLL_S = 0.2
PATIENCE_S = 5.0
"""How long a waiting request keeps its place after it last asked."""
TIMEOUT_S = 2.0
"""How long the store may take for one answer; the first takes some ten round trips over TLS."""
STORE_RETRY_S = 0.5
OUTAGE_S = 5.0
"""How long requests wait for a store that is down."""
SETTLE_S = 3.0
"""How long a store that may have forgotten its leases waits for their holders to renew them."""
_MAX_CONNECTIONS = 16

_logger = logging.getLogger(__name__)


class StoreDown(Exception):
    """The store cannot be asked now."""


class LeasedQueue:
    """A `FairQueue` for all processes with the same store and OLLAMA_BASE_URL.

    The client served longest ago is next. While the store is down, requests with a slot continue;
    a request that needs one waits for `OUTAGE_S`. Then a function refuses it, since nothing else
    bounds functions; other processes fall back to a `FairQueue` of their own, unless
    RATE_LIMIT_FAIL_CLOSED is set.
    """

    def __init__(self, settings: Settings) -> None:
        """Connect to RATE_LIMIT_STORAGE when needed."""
        self.local = FairQueue(settings)
        self.timeout_s = settings.queue_timeout_s
        self.running = 0
        """How many slots this process holds."""
        self.waiting = 0
        """How many of its requests are waiting for a slot."""
        self.max_concurrent = settings.max_concurrent
        self._max_waiting = settings.max_queue
        self._refuses = settings.rate_limit_fail_closed or settings.is_function
        self._down_since: float | None = None  # None: the store is up, as far as is known
        self._retry_at = 0.0
        self._waiting_everywhere = 0
        self._service_s = ASSUMED_SERVICE_S
        self._pool = BlockingConnectionPool.from_url(
            settings.rate_limit_storage,
            max_connections=_MAX_CONNECTIONS,
            socket_timeout=None,  # redis uses wait_for, which in Python 3.11 loses cancellations
            retry=Retry(NoBackoff(), 1),  # a frozen process keeps connections that have ended
        )
        self._script = Redis(connection_pool=self._pool).register_script(SCRIPT)
        machine = hashlib.sha256(settings.ollama_base_url.encode()).hexdigest()[:16]
        self._keys = [f"ollama-web-api:slots:{{{machine}}}:{key}" for key in KEYS]

    def slot(self, client: Caller) -> "Lease":
        """Return a slot for `client`; an `async with` waits for it and holds it."""
        return Lease(self, self.local.slot(client))

    async def acquire(self, lease: "Lease") -> bool:
        """Wait for a slot; return False if the process has to count alone.

        Raises:
            QueueFull: the queue is full, or its turn did not come within `timeout_s`.
            RateLimiterDown: the store has been down for `OUTAGE_S`, and none may count alone.
        """
        self.waiting += 1
        try:
            await self._wait(lease)
        except StoreDown:
            if self._refuses:
                raise RateLimiterDown(
                    "No slot is available: the store that counts them is down", math.ceil(OUTAGE_S)
                ) from None
            return False
        except BaseException:
            await self.leave(lease)  # even if it is not known to have joined
            raise
        finally:
            self.waiting -= 1
        return True

    async def leave(self, lease: "Lease", service_s: float = 0) -> None:
        """Give a slot back after `service_s` seconds, or a place in the queue."""
        with suppress(StoreDown):  # it expires by itself
            await self.ask("leave", lease, service_s)

    async def keep(self, lease: "Lease") -> None:
        """Renew a lease until cancelled."""
        while True:
            await asyncio.sleep(RENEW_S if self._down_since is None else STORE_RETRY_S)
            with suppress(StoreDown):
                await self.ask("renew", lease)

    async def ask(self, step: str, lease: "Lease", service_s: float = 0) -> str:
        """Do a step of the script; return `held`, `waiting` or `gone`."""
        if self._down_since is not None and monotonic() < self._retry_at:
            raise StoreDown
        sizes = (lease.slot.limit, self.max_concurrent, self._max_waiting)
        times = (LEASE_S, PATIENCE_S, SETTLE_S, service_s)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status, waiting, service = await self._script(
                    keys=self._keys, args=[step, lease.ticket, lease.slot.client_id, *sizes, *times]
                )
        except (RedisError, OSError, TimeoutError) as error:  # the first two hold no password
            self._down(str(error) or type(error).__name__)
            raise StoreDown from None
        self._down_since = None
        self._waiting_everywhere = waiting
        self._service_s = float(service) or ASSUMED_SERVICE_S
        text: str = status.decode()
        return text

    async def aclose(self) -> None:
        """Close the connections to the store."""
        await self._pool.aclose()

    def _down(self, problem: str) -> None:
        if self._down_since is None:
            self._down_since = monotonic()
            fate = "requests are refused" if self._refuses else "each process counts alone"
            text = "RATE_LIMIT_STORAGE is down; if it stays so for %g s, %s: %s"
            _logger.warning(text, OUTAGE_S, fate, problem)
        self._retry_at = monotonic() + STORE_RETRY_S

    async def _insist(self, step: str, lease: "Lease") -> str:
        """Ask repeatedly, until the store has been down for `OUTAGE_S`."""
        while True:
            try:
                return await self.ask(step, lease)
            except StoreDown:
                if monotonic() - (self._down_since or 0) >= OUTAGE_S:
                    raise
            await asyncio.sleep(STORE_RETRY_S)

    async def _wait(self, lease: "Lease") -> None:
        deadline = monotonic() + self.timeout_s
        status = await self._insist("join", lease)
        while status != "held":
            if status == "gone":
                slots, waiting = self.max_concurrent, self._waiting_everywhere
                raise self._full(f"The queue is full: {waiting} requests wait for {slots} slots")
            if monotonic() >= deadline:
                raise self._full(f"No slot became free within {self.timeout_s:g} seconds")
            await asyncio.sleep(POLL_S)
            status = await self._insist("poll", lease)
            if status == "gone":  # pushed out, or forgotten by a store that was restarted
                status = await self._insist("join", lease)

    def _full(self, problem: str) -> QueueFull:
        return QueueFull(
            problem,
            max(
                1,
                math.ceil((self._waiting_everywhere + 1) * self._service_s / self.max_concurrent),
            ),
        )


class Lease:
    """Permission to have Ollama work on one request, held for the duration of an `async with`."""

    def __init__(self, queue: LeasedQueue, slot: Slot) -> None:
        """Use the process's own `slot` instead if the process has to count alone."""
        self.slot = slot
        self.ticket = secrets.token_hex(8)
        self.queued_s = 0.0
        """How long it waited."""
        self._queue = queue
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        joined_at = monotonic()
        try:
            if await self._queue.acquire(self):
                self._keeper = asyncio.create_task(self._queue.keep(self))
            else:
                await self.slot.__aenter__()
        finally:
            self.queued_s = monotonic() - joined_at
        self._queue.running += 1
        self._started_at = monotonic()
        return self

    async def __aexit__(self, *details: object) -> None:
        self._queue.running -= 1
        if self._keeper:
            self._keeper.cancel()
            await self._queue.leave(self, monotonic() - self._started_at)
        else:
            await self.slot.__aexit__(*details)
