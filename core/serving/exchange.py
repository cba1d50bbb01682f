"""Runs every request to its end: one deadline, one cancellation, one shape of errors."""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from enum import Enum, auto
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.context import Record, Recorder
from core.contract.dialects import dialect_of
from core.contract.errors import (
    ApiError,
    EndpointNotFound,
    InternalError,
    MethodNotAllowed,
)
from core.contract.responses import PREFERENCE_APPLIED, JSONResponse
from core.contract.retryable import ServerStopping
from core.gate.browsers import with_defaults
from core.serving.aws import remaining_s
from core.serving.waiting import Waiting

LAST_WORDS_S = 5
"""How long a client that does not read may delay its error message."""
LINGER_S = 2
"""How long a connection stays open for a request body that nobody asked for."""

_OF_OPENAI = ("/completions", "/embeddings", "/responses", "/models")
"""What OpenAI's SDKs append to their base URL."""

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
        exchange = _Exchange(self.recorder, scope, receive, send, self._timeout_s(scope))
        try:
            if self.recorder.draining:
                raise ServerStopping
            try:
                await self.app(scope, exchange.receive, exchange.send)
                if response := scope.pop("response", None):
                    await exchange.answer(response)
            finally:
                if record.settle:
                    await record.settle(record)
        except ClientDisconnect as error:
            record.error = type(error)
        except ApiError as error:
            await exchange.fail(error)
        except HTTPException as error:
            await exchange.fail(self._refusal_of_router(error, scope))
        except asyncio.CancelledError:
            await exchange.cancelled()
        except Exception:  # whatever it is, the client gets a JSON error
            _logger.exception("%s failed", record.request_id)
            await exchange.fail(InternalError("Internal error. Check the server's log"))
        finally:
            exchange.stop()
            self.recorder.end(record)

    def _timeout_s(self, scope: Scope) -> float:
        remaining = remaining_s(scope)
        return self.timeout_s if remaining is None else min(self.timeout_s, remaining)

    def _refusal_of_router(self, error: HTTPException, scope: Scope) -> ApiError:
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            methods = sorted((error.headers or {})["Allow"].split(", "))  # Starlette joins a set
            return MethodNotAllowed(scope["method"], ", ".join(methods))
        path = Record.of(scope).path
        family = "/v1/" if f"{path}/".startswith("/v1/") else "/api/"
        related = [endpoint for endpoint in self.endpoints if f" {family}" in endpoint]
        return EndpointNotFound(
            f"Unknown endpoint {path}. {_advice(path)}"
            f"Available: {', '.join(related or self.endpoints)}"
        )


def _advice(path: str) -> str:
    """Return what to do about a wrong base URL of an SDK, which an unknown `path` betrays."""
    path = path.rstrip("/")
    if path.endswith("/v1/messages"):
        return "The base URL of Anthropic's SDKs must have no path. "
    if path.endswith(_OF_OPENAI):
        return "The base URL of OpenAI's SDKs must end in /v1. "
    return ""


class _Answer(Enum):
    DUE = auto()
    STARTED = auto()
    STREAMING = auto()
    """Started, as a stream: a failure can still be reported at its end."""
    COMPLETE = auto()


_DUE, _STARTED, _STREAMING, _COMPLETE = _Answer  # an enum's own attributes are slow


class _Exchange(Waiting):
    __slots__ = ("_answer", "_dialect", "_has_heartbeats", "_recorder", "_scope", "_send")

    def __init__(
        self, recorder: Recorder, scope: Scope, receive: Receive, send: Send, timeout_s: float
    ) -> None:
        record = Record.of(scope)
        super().__init__(record, scope, receive, timeout_s)
        self._recorder = recorder
        self._scope = scope
        self._send = send
        self._dialect = dialect_of(record.path)
        self._answer = _DUE
        self._has_heartbeats = False

    def is_answered(self) -> bool:
        return self._answer is _COMPLETE

    async def cancelled(self) -> None:
        """Report why the application was cancelled."""
        error = self.reason() or ServerStopping()
        if isinstance(error, ApiError):
            await self.fail(error)
        else:
            self._record.error = type(error)

    def answer(self, response: ASGIApp) -> Awaitable[None]:
        """Send `response`; in one message if it is whole, and the server is this project's."""
        if self._flow and isinstance(response, JSONResponse):
            return self._answer_at_once(response)
        return response(self._scope, self.receive, self.send)

    async def _answer_at_once(self, response: JSONResponse) -> None:
        record = self._record
        record.status = response.status_code
        headers = with_defaults([*response.raw_headers, *record.answer_headers], self._scope)
        message = {
            "type": "http.response.start",
            "status": record.status,
            "headers": headers,
            "body": response.body,
        }
        await self._send(message)
        self._answer = _COMPLETE

    def send(self, message: Message) -> Awaitable[None]:
        """Send a part of the answer; a coroutine for each would take longer."""
        if message["type"] == "http.response.start":
            return self._start(message)
        if not message.get("more_body"):
            self._answer = _COMPLETE
        return self._send(message)

    async def _start(self, message: Message) -> None:
        record = self._record
        record.status = message["status"]
        own = [*message.get("headers", ()), *record.answer_headers]
        headers = with_defaults(own, self._scope)
        # It may find a header invalid: then the answer is still due.
        await self._send({**message, "headers": headers})
        self._answer = _STARTED
        if (b"content-type", self._dialect.stream_type) in own:
            self._answer = _STREAMING
            self._recorder.begin_stream(record)
            self._has_heartbeats = PREFERENCE_APPLIED in dict(own)
            # What nobody reads while a stream runs takes a kilobyte.
            record.answer_headers = []
            self._scope["headers"] = []
            self._scope.pop("fields", None)

    async def fail(self, error: ApiError) -> None:
        """Report `error` to the client in whatever way is still open, if it reads at all."""
        self.stop()
        self._record.error = type(error)
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                if self._answer is _DUE:
                    await self._refuse(error)
                elif self._answer is _STREAMING:
                    if self._has_heartbeats:
                        body = self._dialect.late_refusal(error)
                    else:
                        body = self._dialect.last_words(error, self._record.request_id)
                    await self.send({"type": "http.response.body", "body": body})

    async def _refuse(self, error: ApiError) -> None:
        headers = Headers(scope=self._scope)
        if not self.has_begun and "expect" in headers:
            # The client waits for a "100 Continue" that will not come. Its next bytes could be
            # the body or another request: there is no telling which (RFC 9110, 10.1.1).
            error.headers = {**error.headers, "connection": "close"}
        options = ",".join([*headers.getlist("connection"), error.headers.get("connection", "")])
        # The connection also ends with the answer to a body that comes with an offered Upgrade.
        closes = "close" in options.lower() or "upgrade" in headers
        if self._record.may_have_run and error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            # OpenAI's and Anthropic's SDKs would send the request again.
            error.headers = {**error.headers, "x-should-retry": "false"}
        response = self._dialect.response(error, self._record.request_id)
        if not self.has_arrived and (closes or self._scope.get("http_version") == "1.0"):
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
