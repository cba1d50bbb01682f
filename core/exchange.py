"""The frame around every request: one deadline, one end when its client goes, one error shape."""

import asyncio
import logging
from contextlib import suppress
from http import HTTPStatus

import msgspec
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import (
    ApiError,
    EndpointNotFound,
    InternalError,
    MethodNotAllowed,
    RequestTimeout,
    ServerStopping,
)
from core.record import Record, Recorder
from core.responses import NDJSON
from core.schemas import StreamError

LAST_WORDS_S = 5
"""How long a client that does not read may hold up the words that say what has failed."""
LINGER_S = 2
"""How long a connection stays open for a body that nobody has asked for."""
AT_ONCE_S = 0.02
"""An answer that takes no longer needs neither a timer for its deadline nor a task that watches
whether its client is still there."""
LAMBDA_MARGIN_S = 0.5
"""What is left of a Lambda function's time to hand a 504 back."""

_logger = logging.getLogger(__name__)


class ExchangeMiddleware:
    """Runs a request to its end, which is an answer, an error told in its one shape, or nobody.

    A failure before the answer's start is an ordinary error answer; a failure of a stream that
    has begun is its last line. What the app does is cancelled when `timeout_s` are over (under
    Lambda: when the function's own time nearly is) and when the client closes its connection.

    The answer, whatever it is, has the headers that are in the list `scope["state"]["headers"]`.
    """

    def __init__(self, app: ASGIApp, *, timeout_s: float, recorder: Recorder) -> None:
        self.app = app
        self.timeout_s = timeout_s
        self.recorder = recorder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application on an HTTP request; anything else is passed through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        record = self.recorder.begin(scope)
        exchange = _Exchange(record, receive, send)
        scope["state"]["headers"] = exchange.headers
        try:
            if scope["state"].get("draining"):
                raise ServerStopping
            await exchange.run(self.app, scope, self._timeout_s(scope))
        except ClientDisconnect as error:
            record.error = type(error).__name__
        except ApiError as error:
            await exchange.fail(error, scope)
        except HTTPException as error:
            await exchange.fail(_refusal_of_router(error, scope), scope)
        except asyncio.CancelledError:  # by the server, which waits for nothing but this to end
            await exchange.fail(ServerStopping(), scope)
        except Exception:  # whatever it is, the client hears of it in the one shape
            _logger.exception("%s failed", record.request_id)
            await exchange.fail(
                InternalError("Internal error. The log of the server has more"), scope
            )
        finally:
            self.recorder.end(record, scope)

    def _timeout_s(self, scope: Scope) -> float:
        context = scope.get("aws.context")
        if context is None:
            return self.timeout_s
        left_s: float = context.get_remaining_time_in_millis() / 1000 - LAMBDA_MARGIN_S
        return max(0.0, min(self.timeout_s, left_s))


def _refusal_of_router(error: HTTPException, scope: Scope) -> ApiError:
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return MethodNotAllowed(scope["method"], (error.headers or {})["Allow"])
    return EndpointNotFound(
        f"Unknown endpoint {scope['path']}. There are GET /api/health, GET /api/models, "
        "POST /api/chat and POST /api/chat/stream"
    )


class _Exchange:
    def __init__(self, record: Record, receive: Receive, send: Send) -> None:
        self.headers = [(b"x-request-id", record.request_id.encode())]
        self._record = record
        self._receive = receive
        self._send = send
        self._has_read = False
        self._is_stream = False
        self._complete = False
        self._gone = False
        self._is_slow = False
        self._body_has_come = False
        self._watcher: asyncio.Task[None] | None = None

    async def run(self, app: ASGIApp, scope: Scope, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        timer = loop.call_later(min(AT_ONCE_S, timeout_s), self._slow, loop.time() + timeout_s)
        try:
            async with asyncio.timeout(None) as self._deadline:
                await app(scope, self.receive, self.send)
        except TimeoutError:
            if self._gone:
                raise ClientDisconnect from None
            if self._deadline.expired():
                raise RequestTimeout(timeout_s) from None
            raise
        finally:
            timer.cancel()
            if self._watcher:
                self._watcher.cancel()
                self._watcher = None  # whose traceback refers to this: no garbage in a ring

    async def receive(self) -> Message:
        self._has_read = True
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            self._body_has_come = True
            if self._is_slow:
                self._watcher = asyncio.create_task(self._watch())
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._record.status = message["status"]
            headers = list(message.get("headers", ()))
            self._is_stream = (b"content-type", NDJSON.encode()) in headers
            message = {**message, "headers": headers + self.headers}
        elif not message.get("more_body"):
            self._complete = True
        await self._send(message)

    def _slow(self, deadline: float) -> None:
        self._is_slow = True
        self._deadline.reschedule(deadline)
        if self._body_has_come:
            self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        """Wait for the disconnect, which is all that a client can send behind its body."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self._complete and not self._deadline.expired():
            self._gone = True
            self._deadline.reschedule(0)

    async def _send_and_linger(self, message: Message) -> None:
        """Send, and take the body that may be on its way, before the connection is closed.

        A closed one would be reset by it, and Windows drops what it has not read by then: the
        answer (RFC 9112, 9.6).
        """
        if message["type"] == "http.response.body":
            await self.send({**message, "more_body": True})
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    while (await self._receive()).get("more_body"):
                        pass
            message = {"type": "http.response.body"}
        await self.send(message)

    async def fail(self, error: ApiError, scope: Scope) -> None:
        """Tell the client of `error` in the way that is still open, if it reads at all."""
        self._record.error = type(error).__name__
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._tell(error, scope)

    async def _tell(self, error: ApiError, scope: Scope) -> None:
        if not self._record.status:
            headers = Headers(scope=scope)
            if not self._has_read and "expect" in headers:
                # The client waits for a "100 Continue" that will not come. Whether its next bytes
                # are the body or another request, nobody could tell (RFC 9110, 10.1.1).
                error.headers = {**error.headers, "connection": "close"}
            closes = "close" in {error.headers.get("connection"), headers.get("connection")}
            if not self._body_has_come and (closes or scope.get("http_version") == "1.0"):
                await error.response()(scope, self._receive, self._send_and_linger)
            else:
                await error.response()(scope, self._receive, self.send)
        elif self._is_stream and not self._complete:
            line = msgspec.json.encode(StreamError(error=str(error))) + b"\n"
            await self.send({"type": "http.response.body", "body": line})
