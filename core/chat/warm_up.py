"""Loads the models of WARM_UP before anyone asks: at startup, and whenever Ollama comes back."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from core.chat.queue import FairQueue
from core.context import Caller
from core.contract.errors import ApiError
from core.contract.retryable import RateLimiterDown
from core.ollama.client import OllamaClient
from core.ollama.upstream import Upstream
from core.settings.schema import Settings

if TYPE_CHECKING:
    from core.chat.leases import LeasedQueue

WATCH_S = 2
"""Seconds between two checks on an Ollama that answers, and on whether it is idle."""
RETRY_S = 10
"""Seconds between two checks on one that does not answer, each of which writes a line to the log;
also between two attempts to get a slot while the store is down.
"""

_CALLER = Caller(id="warm-up", name="warm-up", address="127.0.0.1")
_logger = logging.getLogger(__name__)


class WarmUp:
    """Loads models in the background, each in a slot that no request of this process waits for.

    Ollama keeps or unloads them like all others: nothing is pinned.
    """

    def __init__(
        self, settings: Settings, queue: "FairQueue | LeasedQueue", client: OllamaClient
    ) -> None:
        self._models: Sequence[str] = settings.warm_up
        self._patience_s = settings.queue_timeout_s
        self._timeout_s = settings.request_timeout_s
        self._watch = Upstream(settings)
        self._queue = queue
        self._client = client
        self.pending = list(self._models)
        """The models that are still to be loaded."""

    async def run(self) -> None:
        """Load the models, now and after every outage of Ollama; never return."""
        try:
            await self._run()
        finally:
            self._watch.pool.close()

    async def _run(self) -> None:
        is_up = has_connection = False
        while True:
            # A restart takes less than WATCH_S, but not without ending this connection.
            has_restarted = has_connection and not self._watch.pool.has_idle()
            was_up, is_up = is_up and not has_restarted, await self._watch.is_connected()
            has_connection = self._watch.pool.has_idle()
            if has_restarted or not is_up:
                self.pending[:] = self._models
            if is_up and not was_up:
                for model in self._models:
                    await self._load(model)
                    self.pending.remove(model)
                has_connection = False  # the pool may have closed it meanwhile
                continue  # without a connection, a restart would not be noticed
            await asyncio.sleep(WATCH_S if is_up else RETRY_S)

    async def _load(self, model: str) -> None:
        try:
            await self._load_when_idle(model)
        except ApiError as error:
            _logger.error("WARM_UP: %s was not loaded: %s", model, error)
        except TimeoutError:
            _logger.error("WARM_UP: %s was not loaded in time: is the GPU busy?", model)
        else:
            _logger.info("WARM_UP: %s is loaded", model)

    async def _load_when_idle(self, model: str) -> None:
        while True:
            async with asyncio.timeout(self._patience_s):
                while self._queue.waiting or self._queue.running >= self._queue.max_concurrent:  # noqa: ASYNC110 - an event would cost every chat
                    await asyncio.sleep(min(WATCH_S, self._patience_s / 10))
            with suppress(RateLimiterDown):  # no request gets a slot either: wait for the store
                async with self._queue.slot(_CALLER), asyncio.timeout(self._timeout_s):
                    await self._client.load(model)
                return
            await asyncio.sleep(RETRY_S)
