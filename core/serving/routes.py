"""What the routes of an application say: their paths, and what a 404 lists."""

from collections.abc import Sequence

from starlette.routing import BaseRoute, Route


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
    """Return the endpoints to list in a 404, such as `POST /api/chat`."""
    return [
        f"{method} {route.path}"
        for route in routes
        if isinstance(route, Route) and route.path.startswith("/api/")
        for method in sorted((route.methods or set()) - {"HEAD"})
    ]
