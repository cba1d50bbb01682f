"""Runs the gate's checks before every endpoint."""

from collections.abc import Awaitable, Sequence
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from core.context import Record


class Check(Protocol):
    """A condition that requests must meet."""

    def __call__(self, scope: Scope, record: Record) -> Awaitable[None] | None:
        """Raise an ApiError to refuse a request; return what to await if that takes time."""


class GateMiddleware:
    """Lets a request through once every check has passed, in order.

    One middleware for all of them: a coroutine for each check would take longer than most checks.
    """

    def __init__(self, app: ASGIApp, *, checks: Sequence[Check]) -> None:
        """Run behind `ExchangeMiddleware`, which starts the record."""
        self.app = app
        self.checks = checks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application if no check refuses the request.

        Raises:
            ApiError: one does.
        """
        if scope["type"] != "lifespan":
            record = Record.of(scope)
            for check in self.checks:
                pending = check(scope, record)
                if pending is not None:
                    await pending
        await self.app(scope, receive, send)
