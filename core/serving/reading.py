"""Reads requests with uvicorn's protocol, within limits of size and time."""

import asyncio
from typing import Any

import httptools
from starlette.types import Scope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from core.contract.errors import ApiError, BadRequest, HeadTimeout, HeadTooLarge, InvalidHTTP
from core.serving.cycle import Cycle
from core.serving.flow import NO_PIPELINE, Flow
from core.serving.heads import framing, objection, scope_of

HEAD_TIMEOUT_S = 10
MAX_HEAD_BYTES = 64 * 1024
LATE_BODY_S = 30
"""How long the body of a request may go on arriving after the answer..."""
MAX_LATE_BODY_BYTES = 64 * 2**20
"""...and how much of it: clients read the answer only after sending everything."""


class _BodyOf:
    """Passes on a request's body, but not the head that a parser needs before it."""

    def __init__(self, reader: "Reader") -> None:
        self.on_body = reader.on_body
        self.on_chunk_header = reader.on_chunk_header
        self.on_chunk_complete = reader.on_chunk_complete
        self.on_message_complete = reader.on_message_complete
        self._has_begun = False

    def on_message_begin(self) -> None:
        """Let nothing follow the body: the connection ends with its answer."""
        if self._has_begun:
            raise BadRequest("The previous request is still in progress")
        self._has_begun = True


class Reader(HttpToolsProtocol):
    """Limits the time and size of a request's head, and of a body that nobody asked for."""

    cycle: Cycle  # type: ignore[assignment] # has all that uvicorn's needs
    flow: Flow  # type: ignore[assignment] # the same

    __slots__ = ("_framing", "_head_size", "_late_bytes", "head_timer", "in_head", "refused")

    def __init__(self, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self.pipeline = NO_PIPELINE
        self.url = b""
        self.head_timer: asyncio.TimerHandle | None = None
        self.in_head = self.refused = False
        self._head_size = self._late_bytes = 0
        self._framing = b""  # of a body that the parser takes for another protocol

    def begin(self, scope: Scope) -> None:
        """Start the request in `scope`."""
        raise NotImplementedError

    def await_request(self) -> None:
        """Start waiting for the next request."""
        raise NotImplementedError

    def refuse(self, error: ApiError) -> None:
        """Stop reading, and answer with `error` unless an earlier request's answer is due."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        """Parse `data`, and wait for the rest of an incomplete head."""
        if self.refused:
            return
        self._head_size += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.refuse(InvalidHTTP("Invalid HTTP request received."))
        if self.in_head:
            if self._head_size > MAX_HEAD_BYTES:
                self.refuse(HeadTooLarge(f"The request's head exceeds {MAX_HEAD_BYTES} bytes"))
            elif self.is_idle():
                self.await_head()

    def on_message_begin(self) -> None:
        """Start a head."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self.in_head = True

    def on_headers_complete(self) -> None:
        """Start the request, unless the previous one is still in progress.

        With two at once, uvicorn would not notice a disconnect. A client that pipelines retries
        the second one when the connection closes after the first answer (RFC 9112, 9.3.2).
        """
        scope = scope_of(self)
        error = objection(scope)
        if not self.is_idle():
            error = BadRequest("The previous request is still in progress")
        if error:
            self.refuse(error)
            raise error
        self.end_head()
        self._late_bytes = 0
        self.headers = None  # type: ignore[assignment] # they live as long as `scope` needs them
        upgrades = self.parser.should_upgrade()
        self.begin(scope)
        if upgrades and (line := framing(scope)):
            self._framing = line
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """End the head, and pass on a piece of the body."""
        self.in_head = False
        self._head_size = 0
        if not self.is_idle():
            if self.cycle.feed(body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
        else:
            self.await_request()  # once the rest of this one stops arriving
            self._late_bytes += len(body)
            if self._late_bytes > MAX_LATE_BODY_BYTES:
                self.transport.close()

    def on_message_complete(self) -> None:
        """End the request, and any wait for the rest of its body."""
        if self._framing:
            return
        self.end_head()
        self.cycle.more_body = False
        if self.cycle.response_complete:
            self.await_request()
        else:
            self.cycle.message_event.set()

    def on_chunk_header(self) -> None:
        """Count what may follow as a head: uvicorn would store any number of trailers."""
        self.in_head = True
        self._head_size = 0
        self.headers = []

    def on_chunk_complete(self) -> None:
        """Mark the end of any trailers."""
        self.in_head = False
        self._head_size = 0

    def is_idle(self) -> bool:
        """Return whether no request is in progress."""
        return not self.cycle or self.cycle.response_complete

    def await_head(self) -> None:
        """Start waiting for the rest of a request's head."""
        self._start_timer(HEAD_TIMEOUT_S)

    def await_rest(self) -> None:
        """Start waiting for what was on its way when the answer ended."""
        if self.cycle.more_body:
            self._start_timer(LATE_BODY_S)
        elif self.in_head:
            self.await_head()

    def end_head(self) -> None:
        """Stop waiting for either."""
        if self.head_timer:
            self.head_timer.cancel()
            self.head_timer = None
        self.in_head = False
        self._head_size = 0

    def rest(self) -> None:
        """Free the parser, which takes a kilobyte, until the client sends something again."""
        if not (self.in_head or self.refused or self.cycle.more_body):
            self.parser = None  # type: ignore[assignment] # as uvicorn does

    def _feed(self, data: bytes) -> None:
        try:
            (self.parser or self._new_parser()).feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            # Answered as if it had not been offered (RFC 9110, 7.8). Java's HttpClient offers h2c
            # with every request; the parser expects no body then.
            rest = data[offer.args[0] :]
            if line := self._framing:
                self._framing = b""
                self.parser = httptools.HttpRequestParser(_BodyOf(self))
                self.parser.feed_data(b"POST / HTTP/1.1\r\n" + line + b"\r\n")
            elif rest:
                self._new_parser()
            if rest:
                self.parser.feed_data(rest)

    def _new_parser(self) -> httptools.HttpRequestParser:
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return self.parser

    def _start_timer(self, seconds: float) -> None:
        if not self.head_timer:
            self.head_timer = self.loop.call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        if self.in_head and not (self.cycle and self.cycle.more_body):
            self.refuse(HeadTimeout(f"No complete request within {HEAD_TIMEOUT_S} seconds"))
        else:
            self.transport.close()
