"""AWS Lambda: everything specific to running as a function behind a gateway."""

import asyncio
import json
import logging
from functools import cached_property
from typing import Any

import msgspec
from mangum import Mangum
from mangum.handlers import HTTPGateway, alb, api_gateway
from mangum.types import ASGI, LambdaContext, LambdaEvent
from mangum.types import Scope as MangumScope
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from core.context import Record
from core.contract.dialects import dialect_of
from core.contract.errors import InternalError
from core.gate.addresses import entries

MARGIN_S = 0.5
"""Seconds of a function's time reserved for returning a 504."""
MAX_ANSWER_BYTES = 6 * 2**20
"""The most that Lambda accepts from a function that does not stream, as JSON:
https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
"""
_MAX_ESCAPE = 6
"""The most bytes that JSON needs for one character."""

_logger = logging.getLogger(__name__)


def remaining_s(scope: Scope) -> float | None:
    """Return the seconds left before the function must answer; None outside Mangum."""
    context = scope.get("aws.context")
    if context is None:
        return None
    remaining_ms: int = context.get_remaining_time_in_millis()
    return max(0.0, remaining_ms / 1000 - MARGIN_S)


class Handler:
    """An application as an AWS Lambda handler, with an event loop of its own.

    If Lambda would reject an answer as too large, it returns one of our errors.
    """

    def __init__(self, app: ASGI) -> None:
        """Adapt `app`; nothing is created before the first event."""
        self._app = app
        self._record: Record | None = None

    def __call__(self, event: LambdaEvent, context: LambdaContext) -> dict[str, Any]:
        """Answer an event of a gateway or a load balancer."""
        answer = self._mangum(event, context)
        if len(answer["body"]) * _MAX_ESCAPE < MAX_ANSWER_BYTES:
            return answer
        # As awslambdaric encodes it on the Pythons that provider.yml may name.
        size = len(json.dumps(answer, ensure_ascii=False).encode())
        if size <= MAX_ANSWER_BYTES:
            return answer
        _logger.error("an answer of %d bytes is more than AWS Lambda accepts", size)
        return _in_place_of(answer, self._record)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
        self._record = scope.get("state", {}).get("record")

    @cached_property
    def _mangum(self) -> Mangum:
        # Mangum uses the thread's current loop. Asking for one that is not there warns since
        # Python 3.12 and fails since 3.14.
        asyncio.set_event_loop(asyncio.new_event_loop())
        return Mangum(
            self._run,
            lifespan="off",
            custom_handlers=[StagedHTTPGateway],
            text_mime_types=["application/json", "application/x-ndjson", "text/event-stream"],
        )


def _server_and_port(headers: dict[str, Any]) -> tuple[str, int]:
    """Return what nothing here asks for.

    Mangum's own raises a ValueError for `Host: [::1]`, and for X-Forwarded-Port with several ports,
    as behind a CDN (https://github.com/Kludex/mangum/issues/303).
    """
    return "localhost", 443


for _module in (alb, api_gateway):
    vars(_module).update(get_server_and_port=_server_and_port)


def create_handler(app: ASGI) -> Handler:
    """Return `app` as an AWS Lambda handler."""
    return Handler(app)


def _in_place_of(answer: dict[str, Any], record: Record | None) -> dict[str, Any]:
    """Return an error with the headers of `answer`, except those about its body."""
    error = InternalError(
        "The answer is over 6 MB, the most that AWS Lambda accepts. Start a new conversation, ask "
        "for a shorter answer with a lower num_predict or max_tokens, or embed fewer texts at once"
    )
    path, request_id = (record.path, record.request_id) if record else ("", "")
    response = dialect_of(path).response(error, request_id)
    body = bytes(response.body).decode()
    headers = {
        "content-type": response.headers["content-type"],
        "content-length": str(len(response.body)),
        "x-should-retry": "false",  # or SDKs would run the model again, for the same answer
    }
    changed = {"statusCode": response.status_code, "body": body, "isBase64Encoded": False}
    if "headers" in answer:
        changed["headers"] = {**answer["headers"], **headers}
    if "multiValueHeaders" in answer:
        lists = {name: [value] for name, value in headers.items()}
        changed["multiValueHeaders"] = {**answer["multiValueHeaders"], **lists}
    return {**answer, **changed}


class StagedHTTPGateway(HTTPGateway):
    """Removes a named stage, which Mangum leaves in an HTTP API's path, unlike `$default`."""

    @property
    def scope(self) -> MangumScope:
        """The ASGI scope of the event."""
        scope = super().scope
        stage = f"/{self.event['requestContext'].get('stage')}"
        if scope["path"].startswith(f"{stage}/"):
            scope["path"] = scope["path"].removeprefix(stage)
        return scope


class GatewayMiddleware:
    """Undoes what the gateway does to a request.

    `scope["client"]` and `scope["scheme"]` become what the gateway reports about its client.

    Mangum puts the address into the scope; for a load balancer it is all of X-Forwarded-For, and
    the load balancer itself appended the last entry. The Lambda Web Adapter passes the gateway's
    request context in a header that it always overwrites.

    A REST API has one key for its gate, in X-API-Key. A caller with a key of its own sends that as
    Authorization: Bearer, and the gateway's key is removed.

    A custom domain's base path, which every kind of event includes, is removed. Mangum's option
    for this needs the path at import, and the adapter's removes it repeatedly
    (https://awslabs.github.io/aws-lambda-web-adapter/features/base-path-removal.html).
    """

    def __init__(self, app: ASGIApp, *, base_path: str = "") -> None:
        self.app = app
        self.base_path = f"/{base_path.strip('/')}" if base_path.strip("/") else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application."""
        if scope["type"] == "http":
            if scope["path"].startswith(f"{self.base_path}/"):
                scope["path"] = scope["path"].removeprefix(self.base_path)
            if "aws.event" in scope:
                host, port = scope["client"]
                scope["client"] = ((host or "").rpartition(",")[2], port)
                identity = scope["aws.event"]["requestContext"].get("identity") or {}
                _leave_out(scope, identity.get("apiKey"))
            else:
                headers = Headers(scope=scope)
                context = _adapter_context(headers)
                scope["client"] = (_adapter_peer(headers, context), 0)
                _leave_out(scope, context.identity.api_key if context.identity else None)
                scheme = entries(headers, "x-forwarded-proto")[-1:]
                scope["scheme"] = "https" if scheme == ["https"] else "http"
        await self.app(scope, receive, send)


def _leave_out(scope: Scope, gateway_key: str | None) -> None:
    """Remove the key that the gateway has checked, if the request has its own key or token."""
    headers = Headers(scope=scope)
    if gateway_key and headers.get("authorization", "").lower().startswith("bearer "):
        header = (b"x-api-key", gateway_key.encode())
        scope["headers"] = [pair for pair in scope["headers"] if tuple(pair) != header]


class _Source(msgspec.Struct, rename="camel"):
    source_ip: str | None = None
    api_key: str | None = None


class _RequestContext(msgspec.Struct):
    identity: _Source | None = None
    http: _Source | None = None
    elb: dict[str, Any] | None = None


def _adapter_context(headers: Headers) -> _RequestContext:
    try:
        return msgspec.json.decode(
            headers.get("x-amzn-request-context", "{}"), type=_RequestContext
        )
    except msgspec.DecodeError:
        return _RequestContext()


def _adapter_peer(headers: Headers, context: _RequestContext) -> str:
    """Return the address that the gateway reported to the Lambda Web Adapter."""
    if context.elb is not None:
        return "".join(entries(headers, "x-forwarded-for")[-1:])
    source = context.http or context.identity
    return (source and source.source_ip) or ""
