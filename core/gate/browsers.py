"""Protects the API from attacks through browsers, and admits the pages that may call it."""

import asyncio
import re
import socket
from collections.abc import Awaitable, Collection, Iterable
from functools import lru_cache
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.middleware import cors
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.context import Record, fields_of
from core.contract.errors import BadRequest, HostNotAllowed

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}
"""Defaults for every answer; headers that it sets itself win."""
REQUEST_HEADERS = (
    *("Authorization", "Content-Type", "Prefer", "X-API-Key", "X-Request-ID"),
    # OpenAI's and Anthropic's SDKs add these, in browsers too; Ollama allows OpenAI's as well.
    *("User-Agent", "OpenAI-Beta", "OpenAI-Organization", "OpenAI-Project"),
    *("Anthropic-Beta", "Anthropic-Dangerous-Direct-Browser-Access", "Anthropic-Version"),
    *("X-Stainless-Arch", "X-Stainless-Async", "X-Stainless-Helper", "X-Stainless-Helper-Method"),
    *("X-Stainless-Lang", "X-Stainless-OS", "X-Stainless-Package-Version"),
    *("X-Stainless-Retry-Count", "X-Stainless-Runtime", "X-Stainless-Runtime-Version"),
    "X-Stainless-Timeout",
)
"""What pages may send; deploy/options.js has the same for AWS' gateways."""
HSTS = "max-age=31536000"
FULL_NAME_TIMEOUT_S = 1
"""How long a request waits for this machine's full name, since DNS can be slow."""

RAW_HEADERS = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
_SECURE_HEADERS = [(b"strict-transport-security", HSTS.encode()), *RAW_HEADERS]
_NAMES = frozenset(name for name, _ in _SECURE_HEADERS)
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:@\s]+?)\.?(?::\d*)?", re.IGNORECASE)
_LOOPBACK_NAMES = ("localhost", "*.localhost")


def with_defaults(
    headers: Iterable[tuple[bytes, bytes]], scope: Scope
) -> list[tuple[bytes, bytes]]:
    """Return an answer's `headers`, then the security headers it lacks; HSTS only over TLS."""
    headers = [*headers]
    own = dict(headers)
    defaults = _SECURE_HEADERS if scope["scheme"] == "https" else RAW_HEADERS
    if _NAMES.isdisjoint(own):
        return headers + defaults
    return headers + [header for header in defaults if header[0] not in own]


class SecurityHeadersMiddleware:
    """Adds the security headers to answers that `ExchangeMiddleware` does not send."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application and add the headers that its answer lacks."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = with_defaults(message.get("headers", ()), scope)
            await send(message)

        await self.app(scope, receive, send_with_headers)


class CORSMiddleware(cors.CORSMiddleware):
    """Starlette's CORS middleware with this API's headers, and JSON errors in place of plain text.

    It wraps the middleware that renders errors, so pages can read those too.
    """

    def __init__(self, app: ASGIApp, *, origins: Collection[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=REQUEST_HEADERS,
            expose_headers=(
                "Preference-Applied",
                "RateLimit",
                "RateLimit-Policy",
                "Retry-After",
                "X-Request-ID",
                "X-Should-Retry",
            ),
            allow_private_network=True,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a preflight; a refusal has this API's error format."""
        response = super().preflight_response(request_headers)
        if response.status_code == BadRequest.status:
            reason = bytes(response.body).decode()
            return BadRequest(f"{reason}. CORS_ORIGINS lists the allowed origins").response()
        return response


class AllowedHosts:
    """Refuses requests for other host names, as DNS rebinding sends them.

    Starlette's TrustedHostMiddleware answers in plain text and does not handle IP addresses. The
    names of an AWS gateway are not known in advance: behind one, every name is accepted unless
    ALLOWED_HOSTS is set.
    """

    def __init__(self, *, allowed_hosts: Collection[str], behind_gateway: bool) -> None:
        """Accept `allowed_hosts`, localhost, this machine's own names, and any IP address."""
        self.accepts_all = "*" in allowed_hosts or (behind_gateway and not allowed_hosts)
        machine = socket.gethostname().lower()
        own = (machine, f"{machine.partition('.')[0]}.local")
        self.patterns = [*_LOOPBACK_NAMES, *own, *(host.lower() for host in allowed_hosts)]
        self.full_name: asyncio.Task[str | None] | None = None
        self._listed = lru_cache(maxsize=1024)(self._is_listed)

    def __call__(self, scope: Scope, record: Record) -> Awaitable[None] | None:
        """Check the Host header.

        Raises:
            HostNotAllowed: it names another host.
        """
        if self.accepts_all:
            return None
        host = _host(scope)
        if host is None:
            raise _not_allowed()
        return None if self._listed(host) else self._check_full_name(_name(host))

    async def _check_full_name(self, name: str) -> None:
        if self.full_name is None:
            self.full_name = asyncio.create_task(asyncio.to_thread(_full_name))
        await asyncio.wait({self.full_name}, timeout=FULL_NAME_TIMEOUT_S)
        if not self.full_name.done() or name != self.full_name.result():
            raise _not_allowed()

    def _is_listed(self, host: bytes) -> bool:
        name = _name(host)
        return _is_address(name) or any(_matches(name, pattern) for pattern in self.patterns)


def _not_allowed() -> HostNotAllowed:
    return HostNotAllowed(
        "The Host header does not name this server. The operator can add the name to ALLOWED_HOSTS"
    )


def _host(scope: Scope) -> bytes | None:
    """Return the Host header if there is exactly one."""
    fields, headers = fields_of(scope), scope["headers"]
    if len(fields) < len(headers) and sum(name == b"host" for name, _ in headers) > 1:
        return None
    return fields.get(b"host")


def _name(host: bytes) -> str:
    """Return the name or address in a Host header, in lower case; "" if it is malformed."""
    match = _HOST.fullmatch(host.decode("latin-1"))
    return match[1].lower() if match else ""


def _full_name() -> str | None:
    try:
        return socket.getfqdn().lower()
    except UnicodeError:  # the machine's name is not a valid DNS name
        return None


def _is_address(name: str) -> bool:
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _matches(name: str, pattern: str) -> bool:
    return name.endswith(pattern[1:]) if pattern.startswith("*") else name == pattern
