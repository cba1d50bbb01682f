"""An application's routes: their paths, the list in a 404, and a shortcut to their endpoints."""

from collections.abc import Sequence
from inspect import iscoroutinefunction
from types import FunctionType

from starlette.requests import Request
from starlette.routing import BaseRoute, Match, Route, Router
from starlette.types import Receive, Scope, Send

from core.context import Recorder


def paths(routes: Sequence[BaseRoute]) -> list[str]:
    """Return the paths of `routes`."""
    return [route.path for route in routes if isinstance(route, Route)]


def with_slash(routes: Sequence[BaseRoute]) -> list[Route]:
    """Return a copy of each route with a trailing slash."""
    return [
        Route(f"{route.path}/", route.endpoint, methods=list(route.methods or ()))
        for route in routes
        if isinstance(route, Route) and route.path != "/"
    ]


def endpoints(routes: Sequence[BaseRoute]) -> list[str]:
    """Return the endpoints that a 404 may list, such as `POST /api/chat`."""
    return [
        f"{method} {route.path_format}"
        for route in routes
        if isinstance(route, Route) and route.path.startswith(("/api/", "/v1/"))
        for method in sorted((route.methods or set()) - {"HEAD"})
    ]


def _first_match(router: Router, method: str, path: str) -> BaseRoute | None:
    scope = {"type": "http", "method": method, "path": path}
    return next((route for route in router.routes if route.matches(scope)[0] is Match.FULL), None)


class Shortcut:
    """Looks up the endpoint of a plain path: asking each route would take as long as the gate."""

    def __init__(self, router: Router, recorder: Recorder) -> None:
        """Leave to `router` all but the exact paths and methods of its routes."""
        self._router = router
        self._let_others_catch_up = recorder.let_others_catch_up
        self._endpoints = {
            (method, route.path): route.endpoint
            for route in router.routes
            if isinstance(route, Route)
            and not route.param_convertors
            and iscoroutinefunction(route.endpoint)
            and isinstance(route.app, FunctionType)  # so the route has no middleware
            for method in route.methods or ()
            if _first_match(router, method, route.path) is route  # no earlier one matches too
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the endpoint, and leave its response in `scope` for `ExchangeMiddleware` to send.

        If this sent it, the coroutines in between would wait for the whole of a stream, each in
        270 bytes.
        """
        endpoint = scope["type"] == "http" and self._endpoints.get((scope["method"], scope["path"]))
        if endpoint and not scope.get("root_path"):
            await self._let_others_catch_up()
            scope["response"] = await endpoint(Request(scope, receive, send))
            await self._let_others_catch_up()
        else:
            await self._router(scope, receive, send)
