"""A pool of connections to one upstream.

It replaces httpx's own, httpcore, which costs many times the CPU of everything else here (the
naive proxy in tests/benchmarks uses it).
"""

import asyncio
import ssl
import time
from collections import deque

from core.ollama.connection import ConnectFailed, Connection, ConnectTimeout, Header

IDLE_EXPIRY_S = 15
"""Seconds for which an idle connection may be reused; relays close theirs later."""
MAX_IDLE = 256


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
        self._idle: deque[Connection] = deque()

    async def send(self, request: bytes) -> tuple[int, list[Header], "Body"]:
        """Send `request`, and return the status, the headers and the body of its answer.

        Raises:
            UpstreamError: no valid answer arrived.
        """
        connection = self._take_idle() or await self._connect()
        try:
            status, head = await connection.exchange(request)
        except BaseException:
            connection.abort()
            raise
        return status, head, Body(connection, self._idle)

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().abort()

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

    def __init__(self, connection: Connection, idle: deque[Connection]) -> None:
        """Return `connection` to the `idle` ones when closed."""
        self._connection = connection
        self._idle = idle

    async def read(self) -> bytes:
        """Return its next bytes, as soon as there are any; empty at its end.

        Raises:
            UpstreamError: the rest will not arrive.
        """
        return await self._connection.read()

    def close(self) -> None:
        """Keep the connection for reuse if the body was read to its end."""
        connection, idle = self._connection, self._idle
        if not connection.reusable():
            connection.abort()
            return
        connection.idle_since = time.monotonic()
        idle.append(connection)
        while idle and (len(idle) > MAX_IDLE or _is_expired(idle[0])):
            idle.popleft().abort()


def _is_expired(connection: Connection) -> bool:
    return time.monotonic() - connection.idle_since > IDLE_EXPIRY_S
