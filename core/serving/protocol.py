"""uvicorn's HTTP protocol, with limits on large request heads and on slow clients."""

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from core.context import Record
from core.contract.errors import ApiError, BadRequest, HeadTimeout, HeadTooLarge, InvalidHTTP
from core.serving.connections import Connections, limit_unread
from core.serving.cycle import Cycle, add_request_line
from core.serving.flow import NO_PIPELINE, Flow
from core.serving.half_closed import HalfClosed
from core.serving.refusals import REFUSED_S, last_answer, log_refusal, objection

KEEP_ALIVE_S = 125
"""Windows PowerShell 5.1 reuses connections for 100 s; uvicorn's 5 s would race with it."""
STRANGER_KEEP_ALIVE_S = 10
"""The same for a connection that never had a request admitted by the gate."""
HEAD_TIMEOUT_S = 10
MAX_HEAD_BYTES = 64 * 1024
LATE_BODY_S = 30
"""How long the body of a request may go on arriving after the answer..."""
MAX_LATE_BODY_BYTES = 64 * 2**20
"""...and how much of it: clients read the answer only after sending everything."""
WRITE_TIMEOUT_S = 60
"""How long a client may leave its answer unread before Linux drops the connection."""


class Protocol(HttpToolsProtocol):
    """Limits the time and size of a request's head, and answers malformed HTTP in JSON."""

    cycle: Cycle
    flow: Flow

    __slots__ = (
        "_half_closed",
        "_head_size",
        "_head_timer",
        "_in_head",
        "_known",
        "_late_bytes",
        "_limits",
        "_refused",
    )
    # CPython stores up to 30 attributes compactly: more would double a connection's memory.

    def __init__(self, *, limits: Connections, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self.pipeline = NO_PIPELINE
        self._limits = limits
        self._head_timer: asyncio.TimerHandle | None = None
        self._half_closed: HalfClosed | None = None
        self._in_head = self._refused = self._known = False
        self._head_size = self._late_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for the first request."""
        super().connection_made(transport)
        self.flow = Flow(transport)
        limit_unread(transport, WRITE_TIMEOUT_S)
        self._known = self._limits.is_trusted(self._host)
        if refusal := self._limits.add(self, self._host):
            self._log(refusal)
            self._turn_away(refusal)
        else:
            self._start_head_timer(HEAD_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._limits.remove(self)
        self._stop_head_timer()
        if self._half_closed:
            self._half_closed.stop()
            self._half_closed = None
        super().connection_lost(exc)
        self.flow.end()

    def close_idle(self, refusal: ApiError) -> None:
        """Close the connection; its first request may be on its way, and gets `refusal`."""
        if self.cycle:
            self.transport.close()
        else:
            self._turn_away(refusal)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Keep the connection of a client that awaits its answer: it may still read.

        TLS has no half-closed connections, and HTTP/1.0 no harmless bytes for a probe. Proxies
        that speak HTTP/1.0, such as nginx, close the whole connection instead.
        """
        cycle = self.cycle
        if (
            self._is_idle()
            or cycle.more_body
            or self.scheme == "https"
            or cycle.scope["http_version"] == "1.0"
        ):
            return None
        cycle.keep_alive = False
        self._half_closed = HalfClosed(self.transport, cycle.probe)
        return True

    def data_received(self, data: bytes) -> None:
        """Parse `data`, and wait for the rest of an incomplete head."""
        if self._refused:
            return
        self._head_size += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # answered as if it had not been offered
        except httptools.HttpParserError:
            self._refuse(InvalidHTTP("Invalid HTTP request received."))
        if not self._in_head:
            self._restart_keep_alive_timer()
        elif self._head_size > MAX_HEAD_BYTES:
            self._refuse(HeadTooLarge(f"The request's head exceeds {MAX_HEAD_BYTES} bytes"))
        elif self._is_idle():
            self._start_head_timer(HEAD_TIMEOUT_S)

    def on_message_begin(self) -> None:
        """Mark the start of a head."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Start the request, unless the previous one is still in progress.

        With two at once, uvicorn would not notice a disconnect. A client that pipelines retries
        the second one when the connection closes after the first answer (RFC 9112, 9.3.2).
        """
        error = objection(self.headers, upgrades=self.parser.should_upgrade())
        if not self._is_idle():
            error = BadRequest("The previous request is still in progress")
        if error:
            self._refuse(error)
            raise error
        self._end_head()
        self._late_bytes = 0
        add_request_line(self.scope, self.parser.get_method(), self.url)
        self.scope["flow"] = self.flow  # type: ignore[typeddict-unknown-key]
        self.scope["http_version"] = self.parser.get_http_version()
        keep_alive = self.scope["http_version"] != "1.0" and self.parser.should_keep_alive()
        self.cycle = Cycle(self, keep_alive=keep_alive)
        self._start_asgi_task(self.cycle, self.app)
        self._limits.begin(self)

    def on_body(self, body: bytes) -> None:
        """End the head, and pass on a piece of the body."""
        if self._is_idle():
            self._in_head = False
            self._head_size = 0
            self._late_bytes += len(body)
            if self._late_bytes > MAX_LATE_BODY_BYTES:
                self.transport.close()
        else:
            self._end_head()
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End the wait for the rest of a body."""
        self._end_head()
        self.cycle.more_body = False
        super().on_message_complete()

    def on_chunk_header(self) -> None:
        """Count what may follow as a head: uvicorn would store any number of trailers."""
        self._in_head = True
        self._head_size = 0
        self.headers = []

    def on_chunk_complete(self) -> None:
        """Mark the end of any trailers."""
        self._in_head = False
        self._head_size = 0

    def on_response_complete(self) -> None:
        """Start waiting for the next request, or for the rest of this one."""
        record: Record | None = self.cycle.scope["state"].get("record")
        self._known = self._known or bool(record and record.let_in)
        self.timeout_keep_alive = KEEP_ALIVE_S if self._known else STRANGER_KEEP_ALIVE_S
        self._limits.end(self, known=self._known)
        super().on_response_complete()
        if self.cycle.more_body:
            self._start_head_timer(LATE_BODY_S)
        elif self._in_head and self._is_idle():
            self._start_head_timer(HEAD_TIMEOUT_S)

    @property
    def _host(self) -> str:
        return self.client[0] if self.client else ""

    def _is_idle(self) -> bool:
        return not self.cycle or self.cycle.response_complete

    def _end_head(self) -> None:
        self._stop_head_timer()
        self._in_head = False
        self._head_size = 0

    def _start_head_timer(self, seconds: float) -> None:
        if not self._head_timer:
            self._head_timer = self.loop.call_later(seconds, self._give_up)

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
        if self._in_head and not (self.cycle and self.cycle.more_body):
            self._refuse(HeadTimeout(f"No complete request within {HEAD_TIMEOUT_S} seconds"))
        else:
            self.transport.close()

    def _refuse(self, error: ApiError) -> None:
        """Stop reading, and answer with `error` unless an earlier request's answer is due."""
        if self._refused or self.transport.is_closing():
            return
        self._log(error)
        if not self._is_idle() and (self.cycle.response_started or not self.cycle.more_body):
            self._refused = True
            self.cycle.keep_alive = False
            return
        if not self._is_idle():
            self.cycle.disconnected = True  # the application must not answer too
            self.cycle.message_event.set()
        self._turn_away(error)

    def _turn_away(self, error: ApiError) -> None:
        """Answer with `error` and stop reading, but let the client read it if there is room."""
        self._refused = True
        self.transport.write(last_answer(error))
        if not self._limits.may_linger(self):
            self.transport.close()
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(REFUSED_S, self.transport.close)

    def _log(self, error: ApiError) -> None:
        log_refusal(error, self._host, is_proxy=self._limits.is_trusted(self._host))
