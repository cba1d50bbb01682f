"""HTTP/1.1 to one upstream, for `httpx`, on asyncio's protocols and llhttp's parser.

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
from collections.abc import AsyncIterator

import httptools
import httpx

IDLE_EXPIRY_S = 15
"""Seconds after which a kept connection is not used again; relays close theirs later."""
MAX_IDLE = 256
READ_AHEAD_BYTES = 256 * 1024
"""How much of a body is held for a slow reader before the upstream has to wait."""
TCP_KEEPALIVE_S = 60
"""Silent seconds before TCP probes the upstream; NAT gateways forget after 350."""


class HTTPTransport(httpx.AsyncBaseTransport):
    """A pool of connections to one origin; how many are in use is limited elsewhere.

    A request is written at most once. A kept connection that turns out to be closed is replaced
    as long as nothing was written to it: a POST that may have been seen is never repeated.
    """

    def __init__(
        self,
        origin: httpx.URL,
        *,
        connect_timeout_s: float,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Send every request to `origin`'s host and port, with TLS if there is an `ssl_context`."""
        self._origin = origin
        self._connect_timeout_s = connect_timeout_s
        self._ssl_context = ssl_context
        self._idle: deque[_Connection] = deque()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request`, whose body is in memory, and return its answer without the body.

        Raises:
            httpx.ConnectError: there is no connection; nothing was sent.
            httpx.ConnectTimeout: the same, after a long wait.
            httpx.ReadError: the connection broke; the request may have been processed.
            httpx.RemoteProtocolError: what came is not HTTP, or is not complete.
        """
        connection = self._take_idle() or await self._connect()
        try:
            await connection.exchange(request, await request.aread())
        except BaseException:
            connection.abort()
            raise
        return httpx.Response(
            connection.status, headers=connection.headers, stream=_Body(self, connection)
        )

    async def aclose(self) -> None:
        """Close the connections that are not in use."""
        while self._idle:
            self._idle.pop().abort()

    def release(self, connection: "_Connection") -> None:
        """Keep `connection` for another request if its answer was read to the end."""
        if not connection.reusable():
            connection.abort()
            return
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        while self._idle and (len(self._idle) > MAX_IDLE or self._idle[0].expired()):
            self._idle.popleft().abort()

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
                    _Connection,
                    self._origin.host,
                    self._origin.port or (443 if self._ssl_context else 80),
                    ssl=self._ssl_context,
                )
        except TimeoutError:
            raise httpx.ConnectTimeout(f"no connection in {self._connect_timeout_s:g} s") from None
        except OSError as error:  # ssl.SSLError is one too
            raise httpx.ConnectError(str(error)) from error
        return connection


class _Body(httpx.AsyncByteStream):
    def __init__(self, pool: HTTPTransport, connection: "_Connection") -> None:
        self._pool = pool
        self._connection = connection

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if data := await self._connection.read():
            return data
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._pool.release(self._connection)


class _Connection(asyncio.Protocol):
    """One connection, and the exchange that is under way on it."""

    def __init__(self) -> None:
        self.idle_since = 0.0
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._complete = True
        self._error: httpx.TransportError | None = None
        self._chunks: list[bytes] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        sock = transport.get_extra_info("socket")
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, TCP_KEEPALIVE_S)

    async def exchange(self, request: httpx.Request, content: bytes) -> None:
        """Write `request` with `content` and wait for the head of its answer."""
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._keep_alive = self._complete = self._framed = self._paused = False
        self._buffered = 0
        lines = [b"%b %b HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
        lines += [b"%b: %b" % header for header in request.headers.raw]
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
        return not self._poll.poll(0)

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

    def _fail(self, error: httpx.TransportError) -> None:
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
            self._fail(httpx.RemoteProtocolError("what came is not HTTP"))
            return
        self._buffered += len(data)
        if self._buffered > READ_AHEAD_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        if self.status and not self._framed:
            self._complete = True  # a body without length ends with its connection
        self._fail(httpx.RemoteProtocolError("the connection was closed before the answer's end"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(httpx.ReadError(str(exc or "the connection was closed")))

    # httptools' callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:
            self.headers.append((name, value))
            self._framed |= name.lower() in {b"content-length", b"transfer-encoding"}

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() < httpx.codes.OK:
            self.headers = []
        else:
            self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        if self.status:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()
