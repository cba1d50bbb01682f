"""HTTP/1.1 to one upstream, on asyncio's protocols and llhttp's parser.

It stands where httpx has httpcore, whose pool costs many times the CPU of all else here (the
naive proxy in tests/benchmarks uses it). One read of the network is one chunk of the body:
nothing is made per line of a stream.
"""

import asyncio
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterable
from http import HTTPStatus

import httptools

IDLE_EXPIRY_S = 15
"""Seconds after which a kept connection is not used again; relays close theirs later."""
MAX_IDLE = 256
READ_AHEAD_BYTES = 256 * 1024
"""How much of a body is held for a slow reader before the upstream has to wait."""
TCP_KEEPALIVE_S = 60
"""Silent seconds before TCP probes the upstream; NAT gateways forget after 350."""

Headers = Iterable[tuple[bytes, bytes]]


class PoolError(Exception):
    """There is no answer, or not the whole of it."""


class ConnectFailed(PoolError):
    """There is no connection; nothing was sent."""


class ConnectTimeout(ConnectFailed):
    """There is no connection after a long wait."""


class ConnectionBroken(PoolError):
    """The connection broke; the request may have been processed."""


class InvalidAnswer(PoolError):
    """What came is not HTTP, or is not complete."""


class Pool:
    """Connections to one origin; how many are in use is limited elsewhere.

    A request is written at most once. A kept connection that turns out to be closed is replaced
    as long as nothing was written to it: a POST that may have been seen is never repeated.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        connect_timeout_s: float,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Connect to `host` when needed, with TLS if there is an `ssl_context`."""
        self._host = host
        self._port = port
        self._connect_timeout_s = connect_timeout_s
        self._ssl_context = ssl_context
        self._idle: deque[_Connection] = deque()

    async def request(
        self, method: bytes, target: bytes, headers: Headers, content: bytes
    ) -> "Answer":
        """Send a request and return the answer to it when its head has come.

        Raises:
            PoolError: there is none.
        """
        connection = self._take_idle() or await self._connect()
        try:
            await connection.exchange(method, target, headers, content)
        except BaseException:
            connection.abort()
            raise
        return Answer(connection, self._idle)

    def close(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().abort()

    def _take_idle(self) -> "_Connection | None":
        while self._idle:
            connection = self._idle.pop()
            if connection.fresh():
                return connection
            connection.abort()
        return None

    async def _connect(self) -> "_Connection":
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    _Connection, self._host, self._port, ssl=self._ssl_context
                )
        except TimeoutError:
            raise ConnectTimeout(f"no connection in {self._connect_timeout_s:g} s") from None
        except OSError as error:  # ssl.SSLError is one too
            raise ConnectFailed(str(error)) from error
        return connection


class Answer:
    """The answer to a request; it has to be closed, whether its body was read or not."""

    def __init__(self, connection: "_Connection", idle: "deque[_Connection]") -> None:
        """Give `connection` back to the `idle` ones when closed."""
        self.status = connection.status
        self.headers = connection.headers
        self._connection = connection
        self._idle = idle

    async def read(self) -> bytes:
        """Return what has come of the body, when something has; empty at its end.

        Raises:
            PoolError: the rest of the body does not come.
        """
        return await self._connection.read()

    def close(self) -> None:
        """Keep the connection for another request if the body was read to its end."""
        connection, idle = self._connection, self._idle
        if not connection.reusable():
            connection.abort()
            return
        connection.idle_since = time.monotonic()
        idle.append(connection)
        while idle and (len(idle) > MAX_IDLE or idle[0].expired()):
            idle.popleft().abort()


class _Connection(asyncio.Protocol):
    """One connection, and the exchange that is under way on it."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._complete = True
        self._error: PoolError | None = None
        self._chunks: list[bytes] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        sock = transport.get_extra_info("socket")
        self._fd = sock.fileno()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, TCP_KEEPALIVE_S)

    async def exchange(
        self, method: bytes, target: bytes, headers: Headers, content: bytes
    ) -> None:
        """Write a request and wait for the head of its answer."""
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._keep_alive = self._complete = self._framed = self._paused = False
        self._buffered = 0
        lines = [b"%b %b HTTP/1.1" % (method, target)]
        lines += [b"%b: %b" % header for header in headers]
        self._transport.write(b"\r\n".join((*lines, b"", content)))
        while not self.status:
            await self._progress()

    async def read(self) -> bytes:
        """Return what has come of the body; empty at its end."""
        while not self._chunks:
            if self._complete:
                return b""
            await self._progress()
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks = []
        self._buffered = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    def abort(self) -> None:
        self._transport.abort()

    def reusable(self) -> bool:
        return (
            self._complete
            and self._keep_alive
            and not self._chunks
            and not self._transport.is_closing()
            and not self._transport.get_write_buffer_size()
        )

    def expired(self) -> bool:
        return time.monotonic() - self.idle_since > IDLE_EXPIRY_S

    def fresh(self) -> bool:
        """Tell whether the upstream still listens: an idle socket is readable at its end."""
        if self.expired() or self._transport.is_closing():
            return False
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return not poll.poll(0)

    async def _progress(self) -> None:
        if self._error:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: PoolError) -> None:
        if not self._complete:
            self._error = self._error or error
        self._transport.abort()
        self._wake()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        if self._complete:
            self._transport.abort()  # nobody asked
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(InvalidAnswer("what came is not HTTP"))
            return
        self._buffered += len(data)
        if self._buffered > READ_AHEAD_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        if self.status and not self._framed:
            self._complete = True  # a body without length ends with its connection
        self._fail(InvalidAnswer("the connection was closed before the answer's end"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(ConnectionBroken(str(exc or "the connection was closed")))

    # httptools' callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:
            self.headers.append((name, value))
            self._framed |= name.lower() in {b"content-length", b"transfer-encoding"}

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() < HTTPStatus.OK:
            self.headers = []
        else:
            self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        if self.status:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()
