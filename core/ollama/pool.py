"""A pool of connections to one upstream.

It replaces httpx's own, httpcore, which costs many times the CPU of everything else here (the
naive proxy in tests/benchmarks uses it).
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Iterable
from contextlib import suppress

from core.ollama.connection import (
    ConnectFailed,
    Connection,
    ConnectTimeout,
    Header,
    UpstreamError,
)

IDLE_EXPIRY_S = 15
"""Seconds for which an idle connection may be reused; relays close theirs later."""
MAX_IDLE = 256
END_TIMEOUT_S = 1
"""How long to wait for an answer to end after its last line, so the connection can be reused."""
_SWEEP_EVERY_S = 1


def request_bytes(
    method: bytes, target: bytes, headers: Iterable[Header], content: bytes = b""
) -> bytes:
    """Return a request in wire format; `headers` must declare the length of `content`."""
    lines = [b"%b: %b" % header for header in headers]
    return b"\r\n".join((b"%b %b HTTP/1.1" % (method, target), *lines, b"", content))


class Pool:
    """Connections to one origin; the number in use is limited elsewhere.

    A request is written at most once. An idle connection that turns out to be closed is replaced
    only before anything is written to it: a POST that may have been seen is never repeated.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        connect_timeout_s: float,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Connect to `host` on demand, with TLS if there is an `ssl_context`."""
        self._host = host
        self._port = port
        self._connect_timeout_s = connect_timeout_s
        self._ssl_context = ssl_context
        self._idle: deque[Connection] = deque()  # the longest idle first
        self._sweep: asyncio.TimerHandle | None = None

    async def send(self, request: bytes) -> tuple[int, list[Header], "Body"]:
        """Send `request`, and return the status, the headers and the body of its answer.

        Raises:
            UpstreamError: no valid answer arrived.
        """
        connection = self._take_idle() or await self._connect()
        try:
            arrival = connection.exchange(request)
            del request  # or its megabytes stay in memory while the model thinks
            status, head = await arrival
        except BaseException:
            connection.abort()
            raise
        return status, head, Body(connection, self)

    def keep(self, connection: Connection) -> None:
        """Keep `connection` for reuse, for IDLE_EXPIRY_S at most."""
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        if len(self._idle) > MAX_IDLE:
            self._idle.popleft().abort()
        if not self._sweep:
            self._sweep_later()

    def has_idle(self) -> bool:
        """Return whether a connection is kept, and the other end has kept it too."""
        return any(connection.alive() for connection in self._idle)

    def close(self) -> None:
        """Close the connections that are not in use."""
        if self._sweep:
            self._sweep.cancel()
            self._sweep = None
        while self._idle:
            self._idle.pop().abort()

    def _sweep_later(self) -> None:
        left_s = self._idle[0].idle_since + IDLE_EXPIRY_S - time.monotonic()
        loop = asyncio.get_running_loop()
        self._sweep = loop.call_later(max(0.0, left_s) + _SWEEP_EVERY_S, self._close_expired)

    def _close_expired(self) -> None:
        self._sweep = None
        while self._idle and _is_expired(self._idle[0]):
            self._idle.popleft().abort()
        if self._idle:
            self._sweep_later()

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.alive() and not _is_expired(connection):
                return connection
            connection.abort()
        return None

    async def _connect(self) -> Connection:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    Connection, self._host, self._port, ssl=self._ssl_context
                )
        except TimeoutError:
            raise ConnectTimeout(f"no connection within {self._connect_timeout_s:g} s") from None
        except (OSError, UnicodeError) as error:  # ssl.SSLError or an invalid host name
            raise ConnectFailed(str(error)) from error
        return connection


class Body:
    """The body of an answer; it must be closed, whether or not it was read."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, connection: Connection, pool: Pool) -> None:
        """Return `connection` to `pool` when closed."""
        self._connection = connection
        self._pool: Pool | None = pool

    @property
    def ended(self) -> bool:
        """Whether it was read to its end."""
        return self._connection.ended()

    def read(self) -> Awaitable[bytes]:
        """Return its next bytes, as soon as there are any; empty at its end.

        Raises:
            UpstreamError: the rest will not arrive.
        """
        return self._connection.read()

    async def drain(self) -> None:
        """Read what follows the last line: only a fully read connection can be reused."""
        if self.ended:
            return
        with suppress(TimeoutError, UpstreamError):  # the answer is complete anyway
            async with asyncio.timeout(END_TIMEOUT_S):
                while await self._connection.read():
                    pass

    def close(self) -> None:
        """Keep the connection for reuse if the body was read to its end."""
        pool, self._pool = self._pool, None
        if not pool:  # it was closed before: another request may use the connection by now
            return
        if self._connection.reusable():
            pool.keep(self._connection)
        else:
            self._connection.abort()


def _is_expired(connection: Connection) -> bool:
    return time.monotonic() - connection.idle_since > IDLE_EXPIRY_S
