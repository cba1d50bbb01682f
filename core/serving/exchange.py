"""Runs every request to its end: one deadline, one cancellation, one shape of errors."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum, auto
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core import moment
from core.context import Record, Recorder
from core.contract.dialects import dialect_of
from core.contract.errors import (
    ApiError,
    BodyTimeout,
    EndpointNotFound,
    InternalError,
    MethodNotAllowed,
    RequestTimeout,
)
from core.contract.responses import PREFERENCE_APPLIED
from core.contract.retryable import ServerStopping
from core.gate.browsers import with_defaults
from core.serving.aws import remaining_s

BODY_TIMEOUT_S = 30
"""How long a body may take to grow by MIN_PROGRESS_BYTES, or to end."""
MIN_PROGRESS_BYTES = 16 * 1024
LAST_WORDS_S = 5
"""How long a client that does not read may delay its error message."""
LINGER_S = 2
"""How long a connection stays open for a request body that nobody asked for."""

_logger = logging.getLogger(__name__)


class ExchangeMiddleware:
    """Runs a request until it is answered, has failed, or has lost its client.

    A failure before the answer's start is an ordinary error answer; a failure of a stream that
    has begun is its last line. The application is cancelled after `timeout_s` (on Lambda, when
    the function's own time is nearly up), when the body stops arriving, and when the client
    disconnects.

    Every answer carries the record's `answer_headers`, and the security headers.
    """

    def __init__(
        self, app: ASGIApp, *, timeout_s: float, recorder: Recorder, endpoints: Sequence[str] = ()
    ) -> None:
        """Name `endpoints`, such as `POST /api/chat`, where a request's path is unknown."""
        self.app = app
        self.timeout_s = timeout_s
        self.recorder = recorder
        self.endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application on an HTTP request; pass anything else through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record = self.recorder.begin(scope)
        exchange = _Exchange(record, scope, receive, send)
        try:
            if self.recorder.draining:
                raise ServerStopping
            await exchange.run(self.app, self._timeout_s(scope))
        except ClientDisconnect as error:
            record.error = type(error)
        except ApiError as error:
            await exchange.fail(error)
        except HTTPException as error:
            await exchange.fail(self._refusal_of_router(error, scope))
        except asyncio.CancelledError:  # by the server, which is stopping
            await exchange.fail(ServerStopping())
        except Exception:  # whatever it is, the client gets a JSON error
            _logger.exception("%s failed", record.request_id)
            await exchange.fail(InternalError("Internal error. Check the server's log"))
        finally:
            self.recorder.end(record)

    def _timeout_s(self, scope: Scope) -> float:
        remaining = remaining_s(scope)
        return self.timeout_s if remaining is None else min(self.timeout_s, remaining)

    def _refusal_of_router(self, error: HTTPException, scope: Scope) -> ApiError:
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            return MethodNotAllowed(scope["method"], (error.headers or {})["Allow"])
        return EndpointNotFound(
            f"Unknown endpoint {Record.of(scope).path}. Available: {', '.join(self.endpoints)}"
        )


class _Request(Enum):
    UNREAD = auto()
    ARRIVING = auto()
    ARRIVED = auto()
    GONE = auto()
    """The client disconnected before the answer was complete."""


class _Answer(Enum):
    DUE = auto()
    STARTED = auto()
    STREAMING = auto()
    """Started, as NDJSON: a failure can still be reported in the last line."""
    COMPLETE = auto()


class _Exchange:
    __slots__ = (
        *("_answer", "_arrived", "_body_due_at", "_deadline", "_dialect", "_ends_at"),
        *("_has_heartbeats", "_receive", "_record", "_request", "_scope", "_send", "_watcher"),
    )

    def __init__(self, record: Record, scope: Scope, receive: Receive, send: Send) -> None:
        self._record = record
        self._scope = scope
        self._receive, self._send = receive, send
        self._dialect = dialect_of(record.path)
        self._request = _Request.UNREAD
        self._answer = _Answer.DUE
        self._has_heartbeats = False
        self._watcher: asyncio.Task[None] | None = None
        self._arrived = 0  # bytes of the body since `_body_due_at` was set

    async def run(self, app: ASGIApp, timeout_s: float) -> None:
        now = asyncio.get_running_loop().time()
        self._ends_at = now + timeout_s
        self._body_due_at = now + BODY_TIMEOUT_S
        moment.unless_over(self._slow)
        try:
            async with asyncio.timeout(None) as self._deadline:
                await app(self._scope, self.receive, self.send)
        except TimeoutError:
            if self._request is _Request.GONE:
                raise ClientDisconnect from None
            if not self._deadline.expired():
                raise
            if self._request is _Request.ARRIVING and self._body_due_at < self._ends_at:
                raise BodyTimeout(MIN_PROGRESS_BYTES, BODY_TIMEOUT_S) from None
            raise RequestTimeout(timeout_s) from None
        finally:
            moment.over(self._slow)
            if self._watcher:
                self._watcher.cancel()
                self._watcher = None  # its traceback refers to this object: leave no cycle

    async def receive(self) -> Message:
        if self._request is _Request.UNREAD:
            self._request = _Request.ARRIVING
            if self._deadline.when() is not None:  # after a slow check of the gate
                self._wait_for_body()
        message = await self._receive()
        if message["type"] == "http.request":
            if message.get("more_body"):
                self._arrived += len(message.get("body", b""))
                if self._arrived >= MIN_PROGRESS_BYTES:
                    self._wait_for_body()
            else:
                self._request = _Request.ARRIVED
                if self._deadline.when() is not None:
                    self._slow()
        return message

    def _wait_for_body(self) -> None:
        self._arrived = 0
        self._body_due_at = asyncio.get_running_loop().time() + BODY_TIMEOUT_S
        if self._deadline.when() is not None:
            self._slow()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._record.status = message["status"]
            headers = with_defaults(message.get("headers", ()), self._scope)
            is_stream = (b"content-type", self._dialect.stream_type) in headers
            self._has_heartbeats = any(name == PREFERENCE_APPLIED for name, _ in headers)
            message = {**message, "headers": headers + self._record.answer_headers}
            await self._send(message)  # may find a header invalid: then the answer is still due
            self._answer = _Answer.STREAMING if is_stream else _Answer.STARTED
            return
        if not message.get("more_body"):
            self._answer = _Answer.COMPLETE
        await self._send(message)

    def _slow(self) -> None:
        """Set a deadline, and watch for a disconnect: an immediate answer needs neither."""
        due_at = self._body_due_at if self._request is _Request.ARRIVING else self._ends_at
        self._deadline.reschedule(min(due_at, self._ends_at))
        if self._request is _Request.ARRIVED:
            self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """Wait for a disconnect, the only event after a request's body."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._answer is not _Answer.COMPLETE and not self._deadline.expired():
            self._request = _Request.GONE
            self._deadline.reschedule(0)

    async def fail(self, error: ApiError) -> None:
        """Report `error` to the client in whatever way is still open, if it reads at all."""
        self._record.error = type(error)
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                if self._answer is _Answer.DUE:
                    await self._refuse(error)
                elif self._answer is _Answer.STREAMING:
                    if self._has_heartbeats:
                        body = self._dialect.late_refusal(error)
                    else:
                        body = self._dialect.last_words(error, self._record.request_id)
                    await self.send({"type": "http.response.body", "body": body})

    async def _refuse(self, error: ApiError) -> None:
        headers = Headers(scope=self._scope)
        if self._request is _Request.UNREAD and "expect" in headers:
            # The client waits for a "100 Continue" that will not come. Its next bytes could be
            # the body or another request: there is no telling which (RFC 9110, 10.1.1).
            error.headers = {**error.headers, "connection": "close"}
        closes = "close" in {error.headers.get("connection"), headers.get("connection")}
        if self._record.may_have_run and error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            # OpenAI's and Anthropic's SDKs would send the request again.
            error.headers = {**error.headers, "x-should-retry": "false"}
        response = self._dialect.response(error, self._record.request_id)
        has_arrived = self._request in {_Request.ARRIVED, _Request.GONE}
        if not has_arrived and (closes or self._scope.get("http_version") == "1.0"):
            await response(self._scope, self._receive, self._send_and_linger)
        else:
            await response(self._scope, self._receive, self.send)

    async def _send_and_linger(self, message: Message) -> None:
        """Send, then drain a body that may be on its way before closing the connection.

        Otherwise the body would reset the connection, and Windows would discard an answer that it
        had not read by then (RFC 9112, 9.6).
        """
        if message["type"] == "http.response.body":
            await self.send({**message, "more_body": True})
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    while (await self._receive()).get("more_body"):
                        pass
            message = {"type": "http.response.body"}
        await self.send(message)
