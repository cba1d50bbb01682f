"""Refuses what a web page could send: requests for a foreign host, or from a foreign origin."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send


class LocalOnlyMiddleware:
    """Answers a foreign `Host` or `Origin` with an empty 403, as Ollama does.

    Otherwise a page could call the engine, and read its answers through a name of its own that
    resolves to loopback.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application on a local request; anything but HTTP is passed through."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host, origin = headers.get("host"), headers.get("origin")
            if (host and not _is_local(f"//{host}")) or (origin and not _is_local(origin)):
                await Response(status_code=403)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _is_local(url: str) -> bool:
    """Return whether the host in `url` is this machine's loopback; none at all is not."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
