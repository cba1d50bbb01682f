"""Checks who reaches this server: its ports, keys and fronts, and ways around it."""

import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from core.doctor.findings import Finding, ok, problem, warning
from core.keys.records import parse_keys, read_keys
from core.keys.store import KeyStore
from core.settings.environment import SettingsError
from core.settings.networks import parse_address
from core.settings.schema import Settings

CONNECT_TIMEOUT_S = 2
HTTPS_PORT = 443
_STRANGERS = (ip_address("203.0.113.1"), ip_address("2001:db8::1"))
"""Documentation addresses: nobody's real network."""


def examine(settings: Settings) -> Iterator[Finding]:
    """Check who may call, and whether anything answers."""
    yield from _ports(settings)
    yield from _exposure(settings)
    yield from _open_ollama(settings)
    yield _front(settings)


def _ports(settings: Settings) -> Iterator[Finding]:
    ports = {"PORT": settings.port, "WEB_PORT": settings.web_port}
    for name, port in ports.items():
        if not port:
            continue
        if not _listens(port, _own(settings)):
            yield warning(
                "ports",
                f"nothing listens on {name} {port}",
                "systemctl start ollama-web-api, or ./start.sh",
            )
        elif _is_gateway(settings, port):
            yield ok("ports", f"this gateway answers on {name} {port}")
        else:
            yield problem(
                "ports",
                f"another program uses {name} {port}",
                f"ss -ltnp 'sport = :{port}' shows which; stop it, or set {name}",
            )


def _own(settings: Settings) -> str:
    """Return the address at which this machine reaches its server."""
    address = parse_address(settings.host)
    return "127.0.0.1" if address.is_unspecified else str(address)


def _exposure(settings: Settings) -> Iterator[Finding]:
    """Check who may call."""
    try:
        KeyStore.from_settings(settings)
        path = settings.api_keys_file
        keys = [*parse_keys(settings.api_keys or "[]"), *(read_keys(Path(path)) if path else [])]
    except SettingsError as error:
        yield problem("keys", str(error), "ollama-web-api keys list")
        return
    keys_elsewhere = bool(settings.api_keys_secret)
    has_tokens = settings.jwt_secret or settings.jwt_public_key_file or settings.jwt_jwks_url
    if any(stranger in settings.anonymous_clients for stranger in _STRANGERS):
        yield problem(
            "access",
            "anyone who can reach this server may use it without a key",
            "name your own networks in ANONYMOUS_CLIENTS",
        )
    elif keys or keys_elsewhere or has_tokens:
        yield ok("access", "strangers need a key or a token")
    else:
        yield warning(
            "access",
            f"only {settings.anonymous_clients} may call: there is no key",
            "ollama-web-api keys create --name NAME; in a copy of the project, set API_KEYS_FILE "
            "and run .venv/bin/python -m core.keys create --name NAME",
        )
    if any(stranger in settings.trusted_proxies for stranger in _STRANGERS):
        yield problem(
            "access",
            "TRUSTED_PROXIES contains every address, so anyone can claim to be any client",
            "name only your proxy's address",
        )


def _open_ollama(settings: Settings) -> Iterator[Finding]:
    """Check whether Ollama can be reached around the gate, at this machine's own address."""
    url = urlsplit(settings.ollama_base_url)
    address, port = _own_address(), url.port or 11434
    if url.hostname not in {"127.0.0.1", "::1", "localhost"} or not address:
        return
    if _listens(port, address):
        yield warning(
            "access",
            f"Ollama also listens on {address}:{port}, where it asks for no key",
            "start it with OLLAMA_HOST=127.0.0.1, or keep the port behind a firewall: "
            "deploy/firewall",
        )


def _own_address() -> str:
    """Return the address from which this machine calls others; "" if it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(_STRANGERS[0]), 9))  # sends nothing
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def _front(settings: Settings) -> Finding:
    """Check whether an HTTPS front on this machine would hide its clients."""
    trusts_loopback = ip_address("127.0.0.1") in settings.trusted_proxies
    if not trusts_loopback and settings.port != HTTPS_PORT and _listens(HTTPS_PORT):
        return warning(
            "front",
            "something here speaks HTTPS, but is not trusted: all its clients are strangers",
            "if it is the front of this gateway, TRUSTED_PROXIES=127.0.0.1/32",
        )
    if trusts_loopback and not parse_address(settings.host).is_loopback:
        return ok("front", "a front on this machine is trusted; others reach the gateway too")
    return ok("front", "clients keep their addresses")


def _listens(port: int, host: str = "127.0.0.1") -> bool:
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def is_connected(settings: Settings) -> bool:
    """Return whether this machine's server says that its Ollama answers."""
    if not settings.port:
        return False
    return _health(settings, settings.port).get("ollama_status") == "connected"


def _is_gateway(settings: Settings, port: int) -> bool:
    body = _health(settings, port)
    # The latter if ALLOWED_CLIENTS leaves this machine out.
    return "api_version" in body or body.get("success") is False


def _health(settings: Settings, port: int) -> dict[str, Any]:
    """Return the answer of /api/health, and nothing if it is not an object of JSON."""
    scheme = "https" if settings.ssl_certfile else "http"
    url = httpx.URL(scheme=scheme, host=_own(settings), port=port, path="/api/health")
    try:
        answer = httpx.get(
            url,
            verify=False,  # noqa: S501 - it is on this machine, and its certificate has a name
            trust_env=False,
            timeout=CONNECT_TIMEOUT_S,
        )
        body = answer.json()
    except (httpx.HTTPError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}
