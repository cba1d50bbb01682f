"""The open connections: how many there may be, and which to close when there are too many."""

import asyncio
import logging
import resource
import socket
from collections import Counter
from contextlib import suppress
from itertools import product
from time import monotonic
from typing import Protocol

from core.contract.errors import ApiError
from core.contract.retryable import RateLimited, TooManyConnections, TryAgainLater
from core.gate.sites import Sites
from core.settings.networks import parse_address
from core.settings.schema import Settings

RETRY_S = 10
"""When a connection that was refused may be tried again."""
ARRIVING_S = 1
"""A connection that has been open for less is assumed to have a request on its way."""
OTHER_FILES = 64
"""Open files other than connections: modules, logs, the event loop's, Redis'."""
FILES_PER_CHAT = 2
LOG_INTERVAL_S = 60
"""Minimum seconds between two log lines about closing connections."""

_logger = logging.getLogger(__name__)


def raise_file_limit() -> None:
    """Let this process open as many files as its hard limit allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS has a lower limit than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def limit_unread(transport: asyncio.BaseTransport, seconds: int) -> None:
    """Let Linux drop a connection whose client leaves its answer unread for `seconds`."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        transport.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000
        )


class Connection(Protocol):
    """What `Connections` needs from a connection."""

    def close_idle(self, refusal: ApiError) -> None:
        """Close the connection; its first request may be on its way, and gets `refusal`."""


class Connections:
    """Counts the open connections, in total and by site.

    When there are too many, idle ones (without a request in progress) are closed, oldest first:
    those of strangers, then the others, and those of the last second only after them. If none is
    idle, the newcomer is refused. Any number of clients may be behind loopback and trusted
    proxies, so these have no limit per site.
    """

    def __init__(self, settings: Settings) -> None:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files != resource.RLIM_INFINITY:
            # However many chats may run, clients have half of the files to themselves.
            needed = OTHER_FILES + FILES_PER_CHAT * settings.max_concurrent
            own = min(needed, files // 2)
            if own < needed:
                _logger.warning(
                    "Only %d files may be open, too few for MAX_CONCURRENT (%d) and its clients. "
                    "Raise the limit (ulimit -n) to %d or more",
                    files,
                    settings.max_concurrent,
                    2 * needed,
                )
            self.most = min(settings.max_connections, max(1, files - own))
        else:
            self.most = settings.max_connections
            files = 2 * self.most + settings.max_concurrent + OTHER_FILES
        self._most_leaving = files - self.most - settings.max_concurrent - OTHER_FILES // 2
        self.most_per_client = settings.max_connections_per_client
        self._trusted = settings.trusted_proxies
        self._sites = Sites()
        self._open: dict[Connection, str] = {}
        self._leaving = set[Connection]()
        """Refused ones that stay open until their clients have read why."""
        self._count = Counter[str]()
        self._strangers: dict[Connection, float] = {}
        """Idle ones that never had a request admitted, and since when they have been idle."""
        self._known: dict[Connection, float] = {}
        """The other idle ones; in both, the oldest come first."""
        self._log_at = 0.0

    def is_trusted(self, host: str) -> bool:
        """Return whether `host` is a trusted proxy."""
        return parse_address(host) in self._trusted

    def add(self, connection: Connection, host: str) -> TryAgainLater | None:
        """Count a new connection from `host`; return why it is refused, if it is."""
        site = self._site(host)
        self._open[connection] = site
        self._count[site] += 1
        refusal = None
        if site and self._count[site] > self.most_per_client:
            text = f"Your address has too many connections: {self.most_per_client} are allowed"
            refused = RateLimited(text, RETRY_S)
            refusal = None if self._close_one(refused, site) else refused
        if len(self._open) > self.most:
            self._log()
            full = TooManyConnections("This server has too many connections", RETRY_S)
            if not self._close_one(full):
                self.remove(connection)
                return full
        self._strangers[connection] = monotonic()
        return refusal

    def remove(self, connection: Connection) -> None:
        """Forget a connection; if it is forgotten already, do nothing."""
        self.begin(connection)
        self._leaving.discard(connection)
        site = self._open.pop(connection, None)
        if site is not None:
            self._count[site] -= 1
            if not self._count[site]:
                del self._count[site]

    def may_linger(self, connection: Connection) -> bool:
        """Return whether a refused connection may stay open until its client has read why."""
        if connection in self._open:
            return True
        if len(self._leaving) < self._most_leaving:
            self._leaving.add(connection)
        return connection in self._leaving

    def begin(self, connection: Connection) -> None:
        """Mark the start of a request."""
        self._strangers.pop(connection, None)
        self._known.pop(connection, None)

    def end(self, connection: Connection, *, known: bool) -> None:
        """Mark the end of a request; `known`: whether the gate ever admitted one of them."""
        if connection in self._open:
            (self._known if known else self._strangers)[connection] = monotonic()

    def _site(self, host: str) -> str:
        """Return what counts as one client; empty if any number of clients may be behind it."""
        address = parse_address(host)
        exempt = address.is_loopback or address.is_unspecified or address in self._trusted
        return "" if exempt else self._sites.of(address)

    def _close_one(self, refusal: TryAgainLater, site: str = "") -> bool:
        """Close the idle connection that is missed least, of `site` if given; False if none is."""
        now = monotonic()
        for least_s, idle in product((ARRIVING_S, 0), (self._strangers, self._known)):
            for connection, since in idle.items():
                if now - since < least_s:
                    break
                if not site or self._open[connection] == site:
                    self.remove(connection)
                    connection.close_idle(refusal)
                    return True
        return False

    def _log(self) -> None:
        if monotonic() >= self._log_at:
            self._log_at = monotonic() + LOG_INTERVAL_S
            ((site, count),) = self._count.most_common(1)
            _logger.warning(
                "%d connections are open, as many as MAX_CONNECTIONS or the limit of open files "
                "allows: closing idle ones. Most, %d, come from %s",
                self.most,
                count,
                site or "this machine and trusted proxies",
            )
