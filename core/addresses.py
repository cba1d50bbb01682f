"""Who is at the other end: the client's address, which no client can choose for itself."""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import msgspec
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

Address = IPv4Address | IPv6Address

UNKNOWN = ip_address("0.0.0.0")  # noqa: S104
"""Stands for an address that is not known: only 0.0.0.0/0 is meant to have it in."""

_NODE = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]+))(?::\d+)?")
_PROXY_HEADERS = {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-proto", b"x-real-ip"}


class Networks:
    """Networks in CIDR notation with commas between them; `none` has no address in it."""

    def __init__(self, text: str) -> None:
        """Read them from `text`.

        Raises:
            ValueError: one of them is no network, or has bits set behind its prefix.
        """
        blocks = [] if text == "none" else [block.strip() for block in text.split(",")]
        self._networks = [ip_network(block) for block in blocks]
        self._have = lru_cache(maxsize=1024)(self._is_in_any)

    def __contains__(self, address: Address) -> bool:
        return self._have(address)

    def _is_in_any(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def __str__(self) -> str:
        return ",".join(str(network) for network in self._networks) or "none"


@lru_cache(maxsize=1024)
def parse_address(text: str) -> Address:
    """Return the address in `text`, which may have brackets and a port; UNKNOWN if it has none.

    An IPv4 address within IPv6 is the IPv4 address: a dual-stack socket shows all clients so.
    """
    node = _NODE.fullmatch(text.strip())
    host = (node[1] or node[2]) if node else text.strip()
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return UNKNOWN
    return getattr(address, "ipv4_mapped", None) or address


class ClientAddressMiddleware:
    """Makes `scope["client"]` and `scope["scheme"]` those that the client itself has used.

    Headers are believed as far as they were written by those whom the operator trusts. Under
    AWS Lambda the gateway tells its peer's address: Mangum has it in the scope, and the Lambda
    Web Adapter in a header that it always overwrites.
    """

    def __init__(
        self, app: ASGIApp, *, trusted_proxies: Networks, behind_lambda_adapter: bool
    ) -> None:
        self.app = app
        self.trusted_proxies = trusted_proxies
        self.behind_lambda_adapter = behind_lambda_adapter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application with the client's own address in the scope."""
        if scope["type"] != "lifespan":
            self._resolve(scope)
        await self.app(scope, receive, send)

    def _resolve(self, scope: Scope) -> None:
        adapted = self.behind_lambda_adapter and "aws.event" not in scope
        if not adapted and _PROXY_HEADERS.isdisjoint([name for name, _ in scope["headers"]]):
            scope["client"] = (_text(parse_address(_peer(scope))), 0)
            return
        headers = Headers(scope=scope)
        peer = parse_address(_adapter_peer(headers) if adapted else _peer(scope))
        scope["client"] = (_text(self._client(headers, peer)), 0)
        if adapted or peer in self.trusted_proxies:
            scheme = _entries(headers, "x-forwarded-proto")[-1:]
            scope["scheme"] = "https" if scheme == ["https"] else "http"

    def _client(self, headers: Headers, peer: Address) -> Address:
        """Return the nearest address that is not a trusted proxy's."""
        names = {name for name, _ in headers.raw}
        if peer.is_loopback and peer not in self.trusted_proxies and _PROXY_HEADERS & names:
            return UNKNOWN  # a proxy on this machine: whoever is behind it is not local
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


def _peer(scope: Scope) -> str:
    """Return the address of the socket's peer; none for a Unix socket.

    For an AWS load balancer, Mangum has all of X-Forwarded-For there. Its last entry is the load
    balancer's own.
    """
    host: str | None = (scope.get("client") or ("",))[0]
    return (host or "").rpartition(",")[2]


class _Source(msgspec.Struct, rename="camel"):
    source_ip: str | None = None


class _RequestContext(msgspec.Struct):
    identity: _Source | None = None
    http: _Source | None = None
    elb: dict[str, Any] | None = None


def _adapter_peer(headers: Headers) -> str:
    """Return the address that the Lambda Web Adapter was given by the gateway before it."""
    try:
        context = msgspec.json.decode(
            headers.get("x-amzn-request-context", "{}"), type=_RequestContext
        )
    except msgspec.DecodeError:
        return ""
    if context.elb is not None:
        return "".join(_entries(headers, "x-forwarded-for")[-1:])
    source = context.http or context.identity
    return (source and source.source_ip) or ""


def _entries(headers: Headers, name: str) -> list[str]:
    lines = ",".join(headers.getlist(name))
    return [entry for entry in map(str.strip, lines.split(",")) if entry]
