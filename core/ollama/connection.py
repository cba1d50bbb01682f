"""An HTTP/1.1 client connection, built on asyncio's protocols and llhttp's parser.

One network read is one chunk of the body: nothing is allocated per line of a stream.
"""

import asyncio
import select
import socket
from typing import Any

import httptools

READ_AHEAD_BYTES = 256 * 1024
"""How much of a body is buffered for a slow reader before the upstream is paused."""
KEEPALIVE_IDLE_S = 10
"""Idle seconds before TCP probes the upstream; it also keeps NAT entries, some of 60 s, alive."""
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_PROBES = 2
UNACKNOWLEDGED_S = 15
"""How long the upstream's machine may leave a packet or a probe unacknowledged.

Its kernel acknowledges both while a model thinks, so only a dead machine or network exceeds it.
"""
MAX_HEAD_BYTES = 64 * 1024

Header = tuple[bytes, bytes]
Head = tuple[int, list[Header]]


class UpstreamError(Exception):
    """The answer is missing or incomplete."""


class ConnectFailed(UpstreamError):
    """Connecting failed; nothing was sent."""


class ConnectTimeout(ConnectFailed):
    """Connecting took too long."""


class ConnectionBroken(UpstreamError):
    """The connection broke; the request may have been processed."""


class InvalidAnswer(UpstreamError):
    """The answer is malformed or incomplete."""


class NotHTTP(InvalidAnswer):
    """The answer does not begin as HTTP does: another kind of server sent it."""


class Connection(asyncio.Protocol):
    """A connection, and the exchange in progress on it."""

    __slots__ = (
        *("_awaits_head", "_buffered", "_chunks", "_complete", "_error", "_framed"),
        *("_head_size", "_headers", "_keep_alive", "_loop", "_parser", "_paused", "_status"),
        *("_transport", "_waiter", "idle_since"),
    )

    def __init__(self) -> None:
        """Start out unconnected."""
        self.idle_since = 0.0
        """When it was last used, by `time.monotonic`; maintained by its pool."""
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[Any] | None = None
        self._complete = True
        self._awaits_head = self._framed = False
        self._status = 0
        self._error: UpstreamError | None = None
        self._headers: list[Header] = []
        self._chunks: list[bytes] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Store `transport`, and have TCP notice when the peer's machine is gone."""
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
            ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
            ("TCP_KEEPCNT", KEEPALIVE_PROBES),
            ("TCP_USER_TIMEOUT", round(UNACKNOWLEDGED_S * 1000)),
        ):
            if option := getattr(socket, name, None):  # macOS has only some
                sock.setsockopt(socket.IPPROTO_TCP, option, value)

    def exchange(self, request: bytes) -> asyncio.Future[Head]:
        """Send `request`, and return the status and headers of its answer.

        Raises:
            ConnectionBroken: the connection broke; the request may have been processed.
            InvalidAnswer: the answer is not HTTP, or is incomplete.
        """
        self._status = 0
        self._headers = []
        self._keep_alive = self._complete = self._framed = self._paused = False
        self._awaits_head = True
        self._buffered = self._head_size = 0
        self._transport.write(request)
        return self._arrival()

    def read(self) -> asyncio.Future[bytes]:
        """Return the next bytes of the body, as soon as there are any; empty at its end.

        Raises:
            ConnectionBroken, InvalidAnswer: the rest of the body will not arrive.
        """
        return self._arrival()

    def abort(self) -> None:
        """Close immediately."""
        self._transport.abort()

    def ended(self) -> bool:
        """Return whether the answer has arrived in full, and was read."""
        return self._complete and not self._chunks

    def reusable(self) -> bool:
        """Return whether the last exchange is complete on both sides."""
        return (
            self.ended()
            and self._keep_alive
            and not self._transport.is_closing()
            and not self._transport.get_write_buffer_size()
        )

    def alive(self) -> bool:
        """Return whether the upstream still has it open; a closed idle socket is readable."""
        if self._transport.is_closing():
            return False
        poll = select.poll()  # each takes half a kilobyte: none is kept
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def _arrival(self) -> asyncio.Future[Any]:
        """Return a future of what is to arrive next: a coroutine would take longer, and 200 B."""
        self._waiter = future = self._loop.create_future()
        self._wake()
        return future

    def _wake(self) -> None:
        """Hand over what has arrived, or the reason why it will not."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        if self._awaits_head and self._status:
            self._awaits_head = False
            waiter.set_result((self._status, self._headers))
            self._headers = []
        elif not self._awaits_head and (self._chunks or self._complete):
            waiter.set_result(self._take())
        elif self._error or self._transport.is_closing():
            waiter.set_exception(self._error or ConnectionBroken("the connection was closed"))
            waiter.exception()  # or asyncio would log it, should the waiting task be cancelled now
        else:
            return
        self._waiter = None

    def _take(self) -> bytes:
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    def _fail(self, error: UpstreamError) -> None:
        if not self._complete:
            self._error = self._error or error
        self._transport.abort()
        self._wake()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Parse the next bytes of an answer."""
        if self._complete:
            self._transport.abort()  # unsolicited
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            broken, foreign = InvalidAnswer("the answer's body is malformed"), NotHTTP("not HTTP")
            self._fail(broken if self._status else foreign)
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
        """End the answer; without a declared length, it is complete."""
        if self._status and not self._framed:
            self._complete = True  # a body without a length ends with its connection
        self._fail(InvalidAnswer("the connection was closed before the answer was complete"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the exchange in progress."""
        error = ConnectionBroken(str(exc or "the connection was closed"))
        error.__cause__ = exc
        self._fail(error)

    # httptools' callbacks

    def on_message_begin(self) -> None:
        """Reject data after a complete answer: it is unsolicited."""
        if self._complete:
            raise InvalidAnswer("unsolicited data follows the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; trailers and interim answers' headers are dropped."""
        if not self._status:
            self._headers.append((name, value))
            self._framed |= name.lower() in {b"content-length", b"transfer-encoding"}

    def on_headers_complete(self) -> None:
        """Set the status, unless the answer is an interim one."""
        status = self._parser.get_status_code()
        if status < 200:  # noqa: PLR2004 - an interim answer
            self._headers = []
        else:
            self._status = status

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        """Mark the message complete."""
        if self._status:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()
