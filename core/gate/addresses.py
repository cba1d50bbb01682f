"""The client's address, which no client can forge."""

from functools import lru_cache

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from core.settings.networks import UNKNOWN, Address, Networks, parse_address

_PROXY_HEADERS = {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-proto", b"x-real-ip"}


class ClientAddressMiddleware:
    """Sets `scope["client"]` and `scope["scheme"]` to what the client itself used.

    Forwarding headers count only as far as trusted proxies wrote them.
    """

    def __init__(self, app: ASGIApp, *, trusted_proxies: Networks) -> None:
        self.app = app
        self.trusted_proxies = trusted_proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application with the client's real address in the scope."""
        if scope["type"] != "lifespan":
            self._resolve(scope)
        await self.app(scope, receive, send)

    def _resolve(self, scope: Scope) -> None:
        peer = parse_address((scope.get("client") or ("",))[0] or "")  # a Unix socket has none
        if _PROXY_HEADERS.isdisjoint([name for name, _ in scope["headers"]]):
            scope["client"] = (_text(peer), 0)
            return
        headers = Headers(scope=scope)
        scope["client"] = (_text(self._client(headers, peer)), 0)
        if peer in self.trusted_proxies:
            scheme = _entries(headers, "x-forwarded-proto")[-1:]
            scope["scheme"] = "https" if scheme == ["https"] else "http"

    def _client(self, headers: Headers, peer: Address) -> Address:
        """Return the nearest address that does not belong to a trusted proxy."""
        if peer.is_loopback and peer not in self.trusted_proxies:
            return UNKNOWN  # an untrusted proxy on this machine: its clients may be remote
        client = peer
        for entry in reversed(_entries(headers, "x-forwarded-for")):
            if client == UNKNOWN or client not in self.trusted_proxies:
                break
            reporter, client = client, parse_address(entry)
            if client.is_loopback and not reporter.is_loopback:
                return UNKNOWN  # another machine's loopback
        return client


@lru_cache(maxsize=1024)
def _text(address: Address) -> str:
    return str(address)


def _entries(headers: Headers, name: str) -> list[str]:
    lines = ",".join(headers.getlist(name))
    return [entry for entry in map(str.strip, lines.split(",")) if entry]
