"""Puts an application together: the only place where routes, middleware and errors meet."""

import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from http import HTTPStatus

import httpx
from mangum import Mangum
from mangum.types import ASGI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from core.errors import EndpointNotFound, InternalError, MethodNotAllowed
from core.exchange import ExchangeMiddleware
from core.ollama import OllamaClient
from core.settings import Settings, SettingsError

_logger = logging.getLogger(__name__)


def create_app(
    routes: Sequence[Route],
    settings: Settings | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> ASGI:
    """Return the application that serves `routes`, with and without a slash behind their paths.

    It is put together at its first call: importing an endpoint reads no settings. Endpoints find
    their `settings` and `ollama` client in `request.app.state`.

    Args:
        routes: the endpoints.
        settings: those of the environment if None.
        transport: what reaches Ollama; HTTP if None.
    """

    @cache
    def assembled() -> Starlette:
        return _assemble(routes, settings or Settings.from_env(os.environ), transport)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            application = assembled()
        except SettingsError as error:
            await _refuse(error, scope, receive, send)
        else:
            await application(scope, receive, send)

    return app


def create_handler(app: ASGI) -> Mangum:
    """Return `app` as the callable of an AWS Lambda function."""
    return Mangum(app, lifespan="off", text_mime_types=["application/json", "application/x-ndjson"])


def _assemble(
    routes: Sequence[Route], settings: Settings, transport: httpx.AsyncBaseTransport | None
) -> Starlette:
    ollama = OllamaClient(settings, transport)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await ollama.aclose()

    twins = [
        Route(f"{route.path}/", route.endpoint, methods=list(route.methods or ()))
        for route in routes
    ]
    app = Starlette(
        routes=[*routes, *twins],
        middleware=[Middleware(ExchangeMiddleware, timeout_s=settings.request_timeout_s)],
        exception_handlers={HTTPException: _http_exception},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # Invoke-RestMethod would not follow with its body
    app.state.settings = settings
    app.state.ollama = ollama
    return app


async def _refuse(error: SettingsError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer for an application whose settings are unusable; only the log says which."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    _logger.critical("%s", error)
    refusal = InternalError("This server's settings are unusable. Its log says which one")
    await refusal.response()(scope, receive, send)


async def _http_exception(request: Request, error: Exception) -> Response:
    """Tell in this API's shape what Starlette's router refuses."""
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return MethodNotAllowed(request.method, (error.headers or {})["Allow"]).response()
    return EndpointNotFound(
        f"Unknown endpoint {request.url.path}. There are GET /api/health, GET /api/models, "
        "POST /api/chat and POST /api/chat/stream"
    ).response()
