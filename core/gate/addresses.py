"""The client's address, which no client can forge."""

import logging
from collections.abc import Awaitable
from functools import lru_cache

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from core.context import fields_of
from core.settings.networks import UNKNOWN, Address, Networks, parse_address

PROXY_HEADERS = frozenset(
    {
        b"cdn-loop",
        b"cf-connecting-ip",
        b"cf-ipcountry",
        b"cf-ray",
        b"cf-visitor",
        b"cloudfront-forwarded-proto",
        b"cloudfront-viewer-address",
        b"fastly-client-ip",
        b"fly-client-ip",
        b"fly-forwarded-proto",
        b"forwarded",
        b"tailscale-headers-info",
        b"tailscale-user-login",
        b"tailscale-user-name",
        b"tailscale-user-profile-pic",
        b"true-client-ip",
        b"via",
        b"x-appengine-user-ip",
        b"x-arr-ssl",
        b"x-azure-clientip",
        b"x-azure-socketip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-envoy-external-address",
        b"x-forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-path",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-forwarded-scheme",
        b"x-forwarded-server",
        b"x-forwarded-ssl",
        b"x-original-forwarded-for",
        b"x-original-host",
        b"x-original-proto",
        b"x-original-url",
        b"x-real-ip",
        b"x-request-start",
        b"x-rewrite-url",
        b"x-scheme",
        b"x-vercel-forwarded-for",
    }
)
"""Headers that proxies send, and programs that call directly do not."""

_UNNAMED = (
    "A proxy of TRUSTED_PROXIES at %s sends %s but no client in X-Forwarded-For, so its clients "
    "count as strangers. In nginx, add: proxy_set_header X-Forwarded-For $remote_addr;"
)
_CONTRADICTORY = (
    "A proxy of TRUSTED_PROXIES at %s sends an X-Real-IP that its X-Forwarded-For does not "
    "contain, so this client counts as a stranger. Let the proxy set both headers, whatever the "
    "client sent. In nginx, add: proxy_set_header X-Forwarded-For $remote_addr;"
)
_logger = logging.getLogger(__name__)


class ClientAddressMiddleware:
    """Sets `scope["client"]` and `scope["scheme"]` to what the client itself used.

    Forwarding headers count only as far as trusted proxies wrote them. A client whose proxy does
    not say who it is, or passes on what the client says, is a stranger.
    """

    def __init__(self, app: ASGIApp, *, trusted_proxies: Networks) -> None:
        self.app = app
        self.trusted_proxies = trusted_proxies
        self._warned: set[str] = set()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Run the application with the client's real address in the scope."""
        if scope["type"] != "lifespan":
            self._resolve(scope)
        return self.app(scope, receive, send)

    def _resolve(self, scope: Scope) -> None:
        host = (scope.get("client") or ("",))[0] or ""  # a Unix socket has none
        if PROXY_HEADERS.isdisjoint(fields_of(scope)):
            scope["client"] = (_normal(host), 0)
            return
        peer = parse_address(host)
        headers = Headers(scope=scope)
        if peer not in self.trusted_proxies:
            # A proxy on this machine that is not listed: its clients may be remote.
            scope["client"] = (str(UNKNOWN if peer.is_loopback else peer), 0)
            return
        scope["client"] = (str(self._client(headers, peer)), 0)
        scheme = entries(headers, "x-forwarded-proto")[-1:]
        scope["scheme"] = "https" if scheme == ["https"] else "http"

    def _client(self, headers: Headers, proxy: Address) -> Address:
        """Return the nearest address that does not belong to a trusted proxy.

        A loopback address becomes UNKNOWN: a client may have written it, and a proxy passed it on.
        """
        forwarded = [*map(parse_address, entries(headers, "x-forwarded-for"))]
        if not forwarded:
            sent = sorted(PROXY_HEADERS.intersection(name for name, _ in headers.raw))
            self._warn(_UNNAMED, proxy, b", ".join(sent).decode())
            return UNKNOWN
        trusted = self.trusted_proxies
        real = map(parse_address, entries(headers, "x-real-ip"))
        if any(address not in forwarded and address not in trusted for address in real):
            self._warn(_CONTRADICTORY, proxy)
            return UNKNOWN
        client = proxy
        for entry in reversed(forwarded):
            if client == UNKNOWN or client not in trusted:
                break
            reporter, client = client, entry
            if client.is_loopback and not reporter.is_loopback:
                return UNKNOWN  # another machine's loopback
        return UNKNOWN if client.is_loopback else client

    def _warn(self, text: str, *arguments: object) -> None:
        """Log `text`, once."""
        if text not in self._warned:
            self._warned.add(text)
            _logger.warning(text, *arguments)


@lru_cache(maxsize=1024)
def _normal(host: str) -> str:
    return str(parse_address(host))


def entries(headers: Headers, name: str) -> list[str]:
    """Return the entries of all headers `name`, each of which may be a list."""
    lines = ",".join(headers.getlist(name))
    return [entry for entry in map(str.strip, lines.split(",")) if entry]
