"""Puts an application together: the only place where routes, middleware and errors meet."""

import gc
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cached_property

from mangum import Mangum
from mangum.types import ASGI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from core import logs
from core.addresses import ClientAddressMiddleware
from core.auth import AuthMiddleware
from core.environment import SettingsError
from core.errors import InternalError
from core.exchange import ExchangeMiddleware
from core.http_api import StagedHTTPGateway
from core.jwt import TokenVerifier
from core.key_store import KeyStore
from core.queue import FairQueue
from core.rate_limit import FailureLimiter, RateLimiter, RateLimitMiddleware
from core.record import Recorder
from core.security import AllowedHostsMiddleware, CORSMiddleware, SecurityHeadersMiddleware
from core.settings import Settings
from core.upstream import Upstream

_logger = logging.getLogger(__name__)


class _Starlette(Starlette):
    """Starlette without what it puts around the middleware, which `ExchangeMiddleware` does."""

    def build_middleware_stack(self) -> ASGIApp:
        app: ASGIApp = self.router
        for class_, args, kwargs in reversed(self.user_middleware):
            app = class_(app, *args, **kwargs)
        return app


class Application:
    """An ASGI application that is put together at its first call, when its settings are read."""

    def __init__(self, assemble: Callable[[], Starlette]) -> None:
        self._assemble = assemble

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; with settings that are unusable, by a 500 and a line in the log."""
        try:
            application = self._assembled
        except SettingsError as error:
            await _refuse(error, scope, receive, send)
        else:
            await application(scope, receive, send)

    def reload(self) -> None:
        """Read the API keys again."""
        self._assembled.state.keys.reload()

    @cached_property
    def _assembled(self) -> Starlette:
        return self._assemble()


def create_app(
    routes: Sequence[BaseRoute],
    settings: Settings | None = None,
    *,
    instrumented: bool = False,
) -> Application:
    """Return the application that serves `routes`, with and without a slash behind their paths.

    Endpoints find what they need in `request.app.state`.

    Args:
        routes: the endpoints.
        settings: those of the environment, at the first call, if None.
        instrumented: whether to keep statistics and metrics, which a function has no use for.
    """
    gc.freeze()  # the modules, which are never garbage, need not be looked through again
    gc.enable()
    return Application(
        lambda: _assemble(
            routes, settings or Settings.from_env(os.environ), instrumented=instrumented
        )
    )


def create_handler(app: ASGI) -> Mangum:
    """Return `app` as the callable of an AWS Lambda function."""
    return Mangum(
        app,
        lifespan="off",
        custom_handlers=[StagedHTTPGateway],
        text_mime_types=["application/json", "application/x-ndjson"],
    )


def _assemble(routes: Sequence[BaseRoute], settings: Settings, *, instrumented: bool) -> Starlette:
    is_function = bool(settings.aws_lambda_function_name)
    if is_function:
        logs.configure(settings)
    upstream = Upstream(settings)
    limiter = RateLimiter(settings)
    keys = KeyStore.from_settings(settings)
    queue = FairQueue(settings)
    recorder = Recorder(logs.log_request)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        upstream.pool.close()
        await limiter.aclose()

    middleware = [
        Middleware(
            ClientAddressMiddleware,
            trusted_proxies=settings.trusted_proxies,
            behind_lambda_adapter=is_function,
        ),
        Middleware(SecurityHeadersMiddleware),
        Middleware(ExchangeMiddleware, timeout_s=settings.request_timeout_s, recorder=recorder),
        Middleware(
            AllowedHostsMiddleware, allowed_hosts=settings.allowed_hosts, gateway=is_function
        ),
        Middleware(
            AuthMiddleware,
            settings=settings,
            keys=keys,
            tokens=TokenVerifier.from_settings(settings),
            failures=FailureLimiter(limiter, settings.auth_failure_limit),
        ),
        Middleware(RateLimitMiddleware, limiter=limiter, rate=settings.rate_limit),
    ]
    if settings.cors_origins:
        middleware.insert(2, Middleware(CORSMiddleware, origins=settings.cors_origins))
    app = _Starlette(routes=[*routes, *_twins(routes)], middleware=middleware, lifespan=lifespan)
    app.router.redirect_slashes = False  # Invoke-RestMethod would not follow with its body
    app.state.settings = settings
    app.state.upstream = upstream
    app.state.keys = keys
    app.state.queue = queue
    if instrumented:
        from core.metrics import Metrics  # noqa: PLC0415 - prometheus-client takes its time
        from core.stats import Stats  # noqa: PLC0415

        paths = [route.path for route in routes if isinstance(route, Route)]
        app.state.metrics = Metrics(paths, recorder, queue, limiter)
        app.state.stats = Stats()
        recorder.observers = (
            *recorder.observers,
            app.state.metrics.observe,
            app.state.stats.observe,
        )
    return app


def _twins(routes: Sequence[BaseRoute]) -> list[Route]:
    """Return the routes with a slash behind their paths."""
    return [
        Route(f"{route.path}/", route.endpoint, methods=list(route.methods or ()))
        for route in routes
        if isinstance(route, Route) and route.path != "/"
    ]


async def _refuse(error: SettingsError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer for an application whose settings are unusable; only the log says which."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    _logger.critical("%s", error)
    refusal = InternalError("This server's settings are unusable. Its log says which one")
    await SecurityHeadersMiddleware(refusal.response())(scope, receive, send)
