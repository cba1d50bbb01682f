"""uvicorn's HTTP protocol, with limits on large request heads and on slow clients."""

import asyncio
import socket

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from core.contract.errors import ApiError, BadRequest, HeadTimeout, HeadTooLarge
from core.gate.browsers import HEADERS

KEEP_ALIVE_S = 125
"""Windows PowerShell 5.1 reuses connections for 100 s; uvicorn's 5 s would race with it."""
HEAD_TIMEOUT_S = 20
MAX_HEAD_BYTES = 64 * 1024
WRITE_TIMEOUT_S = 60
"""How long a client may leave its answer unread before Linux drops the connection."""

_BODY_HEADERS = {b"content-length", b"transfer-encoding"}


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with JSON errors for malformed HTTP.

    It limits the time and the size of a request's head, which uvicorn does not.
    """

    __slots__ = ("_head_size", "_head_timer", "_in_head", "_refused")
    # CPython stores up to 30 attributes compactly: more would double a connection's memory.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for the first request."""
        super().connection_made(transport)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            transport.get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, WRITE_TIMEOUT_S * 1000
            )
        self._head_timer: asyncio.TimerHandle | None = None
        self._in_head = self._refused = False
        self._head_size = 0
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse `data`, and wait for the rest of an incomplete head."""
        if self._refused:
            return
        self._head_size += len(data)
        super().data_received(data)
        if not self._in_head:
            self._restart_keep_alive_timer()
        elif self._head_size > MAX_HEAD_BYTES:
            self._refuse(HeadTooLarge(f"The request's head exceeds {MAX_HEAD_BYTES} bytes"))
        elif self._is_idle():
            self._start_head_timer()

    def on_message_begin(self) -> None:
        """Mark the start of a head."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Start the request, unless the previous one is still in progress.

        With two at once, uvicorn would not notice a disconnect. A client that pipelines retries
        the second one when the connection closes after the first answer (RFC 9112, 9.3.2).
        """
        if not self._is_idle():
            raise BadRequest("The previous request is still in progress")
        if self.parser.should_upgrade() and any(name in _BODY_HEADERS for name, _ in self.headers):
            # The parser would mistake the body for another request.
            refusal = BadRequest("A request with a body cannot offer an Upgrade. Omit that header")
            self._refuse(refusal)
            raise refusal
        self._end_head()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """End the head, and pass on a piece of the body."""
        self._end_head()
        super().on_body(body)

    def on_chunk_header(self) -> None:
        """Count what may follow as a head: uvicorn would keep any number of trailers."""
        self._in_head = True
        self._head_size = 0
        self.headers = []

    def on_chunk_complete(self) -> None:
        """Mark the end of any trailers."""
        self._end_head()

    def on_response_complete(self) -> None:
        """Start waiting for the rest of a head that began during the answer."""
        super().on_response_complete()
        if self._in_head and self._is_idle():
            self._start_head_timer()

    def send_400_response(self, msg: str) -> None:
        """Answer with `msg` and close the connection."""
        self._refuse(BadRequest(msg))

    def _is_idle(self) -> bool:
        return not self.cycle or self.cycle.response_complete

    def _end_head(self) -> None:
        self._stop_head_timer()
        self._in_head = False
        self._head_size = 0

    def _start_head_timer(self) -> None:
        if not self._head_timer:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)

    def _stop_head_timer(self) -> None:
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None

    def _restart_keep_alive_timer(self) -> None:
        """Restart uvicorn's timer, which any byte between two requests stops."""
        if self.cycle and self.cycle.response_complete and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _give_up(self) -> None:
        if self._in_head:
            self._refuse(HeadTimeout(f"No complete request within {HEAD_TIMEOUT_S} seconds"))
        else:
            self.transport.close()

    def _refuse(self, error: ApiError) -> None:
        """Read no more, and answer with `error`, unless an earlier request's answer is due."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        if not self._is_idle() and (self.cycle.response_started or not self.cycle.more_body):
            self.cycle.keep_alive = False
            return
        response = error.response()
        response.headers.update({**HEADERS, "connection": "close"})
        head = b"".join(b"%b: %b\r\n" % header for header in response.raw_headers)
        self.transport.write(STATUS_LINE[response.status_code] + head + b"\r\n" + response.body)
        self.transport.close()
