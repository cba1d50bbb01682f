"""Assembles an application: the one place where routes, middleware and settings meet."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute

from core.chat.body import MemoryBudget
from core.chat.queue import FairQueue
from core.context import Recorder
from core.gate.addresses import ClientAddressMiddleware
from core.gate.auth import Auth
from core.gate.browsers import AllowedHosts, CORSMiddleware, SecurityHeadersMiddleware
from core.gate.budgets import Budget
from core.gate.checks import Check, GateMiddleware
from core.gate.rates import FailureLimiter, RateLimit, RateLimiter
from core.gate.tokens import TokenVerifier
from core.keys.store import KeyStore
from core.observe import logs
from core.ollama.upstream import Upstream
from core.serving.application import Application, BareStarlette
from core.serving.aws import GatewayMiddleware
from core.serving.exchange import ExchangeMiddleware
from core.serving.routes import endpoints, paths, with_slash
from core.settings.environment import SettingsError
from core.settings.schema import Settings

if TYPE_CHECKING:
    from core.chat.leases import LeasedQueue
    from core.usage.ledger import Ledger


def create_app(
    routes: Sequence[BaseRoute],
    settings: Settings | None = None,
    *,
    instrumented: bool = False,
) -> Application:
    """Return the application that serves `routes`, with and without a trailing slash.

    Endpoints find what they need in `request.app.state`.

    Args:
        routes: the endpoints.
        settings: if None, read from the environment on the first request.
        instrumented: whether to keep statistics and metrics, which are useless on Lambda.
    """
    gc.freeze()  # modules are never garbage: keep them out of every collection
    return Application(
        lambda: _assemble(
            routes, settings or Settings.from_env(os.environ), instrumented=instrumented
        )
    )


def _assemble(routes: Sequence[BaseRoute], settings: Settings, *, instrumented: bool) -> Starlette:
    if settings.is_function:
        logs.configure(settings)
    elif instrumented:
        from core.serving import workers  # noqa: PLC0415 - imports multiprocessing

        workers.check(settings)
    if settings.rate_limit_storage != "memory://":
        _require_redis()
    upstream = Upstream(settings)
    ledger = _ledger(settings) if instrumented else None
    limiter = RateLimiter(settings, ledger.spent() if ledger else {})
    keys = KeyStore.from_settings(settings)
    memory = MemoryBudget.from_settings(settings)
    queue = _queue(settings)
    recorder = Recorder(logs.log_requests, release=memory.release)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with _warm_up(app):
            yield
        recorder.flush()  # before its observers close
        app.state.close_traces()
        upstream.pool.close()
        await limiter.aclose()
        if not isinstance(queue, FairQueue):
            await queue.aclose()
        if ledger:
            ledger.close()

    app = BareStarlette(
        routes=[*routes, *with_slash(routes)],
        middleware=_middleware(
            routes, settings, recorder, _checks(settings, keys, limiter, ledger)
        ),
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # Invoke-RestMethod would not resend its body
    app.state.settings = settings
    app.state.upstream = upstream
    app.state.keys = keys
    app.state.queue = queue
    app.state.memory = memory
    app.state.recorder = recorder
    app.state.loading = []
    app.state.close_traces = lambda: None
    if ledger:
        from core.instruments import instrument  # noqa: PLC0415 - imports prometheus-client

        instrument(app, paths(routes), limiter, ledger)
    return app


@asynccontextmanager
async def _warm_up(app: Starlette) -> AsyncIterator[None]:
    """Load the models of WARM_UP in the background."""
    settings: Settings = app.state.settings
    if not settings.warm_up:
        yield
        return
    from core.chat.warm_up import WarmUp  # noqa: PLC0415 - imports httpx
    from core.ollama.client import ollama_client  # noqa: PLC0415

    warm_up = WarmUp(settings, app.state.queue, ollama_client(app.state))
    app.state.loading = warm_up.pending
    task = asyncio.create_task(warm_up.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _queue(settings: Settings) -> "FairQueue | LeasedQueue":
    shared = {"never": False, "functions": settings.is_function, "always": True}
    if settings.rate_limit_storage == "memory://" or not shared[settings.share_queue]:
        return FairQueue(settings)
    from core.chat.leases import LeasedQueue  # noqa: PLC0415 - takes 0.1 s

    return LeasedQueue(settings)


def _require_redis() -> None:
    from importlib.util import find_spec  # noqa: PLC0415 - few functions have a store

    if find_spec("redis") is None:
        raise SettingsError(
            "RATE_LIMIT_STORAGE needs a package that is not installed. Pack the functions with "
            "deploy/package.py --redis"
        )


def _middleware(
    routes: Sequence[BaseRoute], settings: Settings, recorder: Recorder, checks: Sequence[Check]
) -> list[Middleware]:
    """Return the middleware, outermost first."""
    gateway = [Middleware(GatewayMiddleware, base_path=settings.api_gateway_base_path)]
    cors = [
        Middleware(SecurityHeadersMiddleware),
        Middleware(CORSMiddleware, origins=settings.cors_origins),
    ]
    return [
        *(gateway if settings.is_function else []),
        Middleware(ClientAddressMiddleware, trusted_proxies=settings.trusted_proxies),
        *(cors if settings.cors_origins else []),  # outermost, so pages can read errors
        Middleware(
            ExchangeMiddleware,
            timeout_s=settings.request_timeout_s,
            recorder=recorder,
            endpoints=endpoints(routes),
        ),
        Middleware(GateMiddleware, checks=checks),
    ]


def _checks(
    settings: Settings, keys: KeyStore, limiter: RateLimiter, ledger: "Ledger | None"
) -> list[Check]:
    """Return the gate's checks, in order."""
    function = settings.is_function
    return [
        AllowedHosts(allowed_hosts=settings.allowed_hosts, behind_gateway=function),
        Auth(
            settings=settings,
            keys=keys,
            tokens=TokenVerifier.from_settings(settings, check_key=not function),
            failures=FailureLimiter(limiter, settings.auth_failure_limit),
        ),
        RateLimit(limiter=limiter, rate=settings.rate_limit),
        Budget(limiter=limiter, default=settings.user_tokens, keeper=ledger),
    ]


def _ledger(settings: Settings) -> "Ledger":
    from core.usage.ledger import Ledger  # noqa: PLC0415 - sqlite3 is slow to import

    return Ledger(settings.usage_file)
