"""A connection that speaks HTTP/1.1 as a client, on asyncio's protocols and llhttp's parser.

One read of the network is one chunk of the body: nothing is made per line of a stream.
"""

import asyncio
import select
import socket
from collections.abc import Iterable
from http import HTTPStatus

import httptools

READ_AHEAD_BYTES = 256 * 1024
"""How much of a body is held for a slow reader before the upstream has to wait."""
TCP_KEEPALIVE_S = 60
"""Silent seconds before TCP probes the upstream; NAT gateways forget after 350."""
MAX_HEAD_BYTES = 64 * 1024

Header = tuple[bytes, bytes]


class UpstreamError(Exception):
    """There is no answer, or not the whole of it."""


class ConnectFailed(UpstreamError):
    """There is no connection; nothing was sent."""


class ConnectTimeout(ConnectFailed):
    """There is no connection after a long wait."""


class ConnectionBroken(UpstreamError):
    """The connection broke; the request may have been processed."""


class InvalidAnswer(UpstreamError):
    """What came is not HTTP, or is not complete."""


def request_bytes(
    method: bytes, target: bytes, headers: Iterable[Header], content: bytes = b""
) -> bytes:
    """Return a request as it is on the wire; `headers` have the length of `content`."""
    lines = [b"%b: %b" % header for header in headers]
    return b"\r\n".join((b"%b %b HTTP/1.1" % (method, target), *lines, b"", content))


class Connection(asyncio.Protocol):
    """One connection, and the exchange that is under way on it."""

    def __init__(self) -> None:
        """Wait to be connected."""
        self.idle_since = 0.0
        """When it was last used, in seconds of `time.monotonic`; its pool keeps this."""
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._complete = True
        self._status = 0
        self._framed = False
        self._error: UpstreamError | None = None
        self._chunks: list[bytes] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Keep `transport`, which probes a peer that is silent for long."""
        self._transport = transport
        sock = transport.get_extra_info("socket")
        self._fd = sock.fileno()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, TCP_KEEPALIVE_S)

    async def exchange(self, request: bytes) -> tuple[int, list[Header]]:
        """Write `request`, wait for the head of its answer, and return its status and headers.

        Raises:
            ConnectionBroken: the connection broke; the request may have been processed.
            InvalidAnswer: what came is not HTTP, or is not complete.
        """
        self._status = 0
        self._headers: list[Header] = []
        self._keep_alive = self._complete = self._framed = self._paused = False
        self._buffered = self._head_size = 0
        self._transport.write(request)
        while not self._status:
            await self._progress()
        head, self._headers = self._headers, []
        return self._status, head

    async def read(self) -> bytes:
        """Return what has come of the body, when something has; empty at its end.

        Raises:
            ConnectionBroken, InvalidAnswer: the rest of the body does not come.
        """
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
        """Close at once."""
        self._transport.abort()

    def reusable(self) -> bool:
        """Tell whether nothing is left of the last exchange, on either side."""
        return (
            self._complete
            and self._keep_alive
            and not self._chunks
            and not self._transport.is_closing()
            and not self._transport.get_write_buffer_size()
        )

    def alive(self) -> bool:
        """Tell whether the upstream has not closed it: an idle socket is readable at its end."""
        if self._transport.is_closing():
            return False
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return not poll.poll(0)

    async def _progress(self) -> None:
        if self._error:
            raise self._error
        if self._transport.is_closing():
            raise ConnectionBroken("the connection was closed")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: UpstreamError) -> None:
        if not self._complete:
            self._error = self._error or error
        self._transport.abort()
        self._wake()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Parse what has come of an answer."""
        if self._complete:
            self._transport.abort()  # nobody asked
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(InvalidAnswer("what came is not HTTP"))
            return
        if not self._status:
            self._head_size += len(data)
            if self._head_size > MAX_HEAD_BYTES:
                self._fail(InvalidAnswer(f"the answer's head is over {MAX_HEAD_BYTES} bytes"))
                return
        elif self._chunks:
            self._buffered += len(data)
        if self._buffered > READ_AHEAD_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """End the answer, which is complete if it had no length."""
        if self._status and not self._framed:
            self._complete = True  # a body without length ends with its connection
        self._fail(InvalidAnswer("the connection was closed before the answer's end"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the exchange that is under way."""
        self._fail(ConnectionBroken(str(exc or "the connection was closed")))

    # httptools' callbacks

    def on_message_begin(self) -> None:
        """Refuse what comes behind a whole answer: nobody has asked for it."""
        if self._complete:
            raise InvalidAnswer("more came than was asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; those of trailers and of interim answers are not."""
        if not self._status:
            self._headers.append((name, value))
            self._framed |= name.lower() in {b"content-length", b"transfer-encoding"}

    def on_headers_complete(self) -> None:
        """Take the status, unless the answer is an interim one."""
        if self._parser.get_status_code() < HTTPStatus.OK:
            self._headers = []
        else:
            self._status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        """Take note of the end."""
        if self._status:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()
