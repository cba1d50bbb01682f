"""Checks without Ollama: ports, exposure, certificates, limits and time-outs."""

import resource
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from core.doctor.findings import Finding, ok, problem, warning
from core.keys.records import parse_keys, read_keys
from core.keys.store import KeyStore
from core.settings.environment import SettingsError
from core.settings.networks import parse_address
from core.settings.schema import Settings

CONNECT_TIMEOUT_S = 2
CERTIFICATE_NOTICE_DAYS = 14
MIN_FILES = 4096
"""Each stream has two sockets."""
FRONT_TIMEOUT_S = 310
"""How long the fronts in deploy/ wait."""
_STRANGERS = (ip_address("203.0.113.1"), ip_address("2001:db8::1"))
"""Documentation addresses: nobody's real network."""


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield what is found on this machine and in the settings."""
    yield from _ports(settings)
    yield from _exposure(settings)
    yield _front(settings)
    for name in ("ssl_certfile", "ollama_client_cert", "ollama_ca_file"):
        if path := getattr(settings, name):
            yield _certificate(name.upper(), Path(path))
    yield _files()
    yield _timeouts(settings)
    if settings.rate_limit_storage != "memory://":
        yield _store(settings)


def _ports(settings: Settings) -> Iterator[Finding]:
    ports = {"PORT": settings.port, "WEB_PORT": settings.web_port}
    for name, port in ports.items():
        if not port:
            continue
        if not _listens(port):
            yield warning(
                "ports", f"nobody listens on {name} {port}", "systemctl start ollama-web-api"
            )
        elif _is_gateway(settings, port):
            yield ok("ports", f"this gateway answers on {name} {port}")
        else:
            yield problem(
                "ports",
                f"another program has {name} {port}",
                f"ss -ltnp 'sport = :{port}' shows which; stop it, or set {name}",
            )


def _exposure(settings: Settings) -> Iterator[Finding]:
    """Yield who may call."""
    try:
        KeyStore.from_settings(settings)
        path = settings.api_keys_file
        keys = [*parse_keys(settings.api_keys or "[]"), *(read_keys(Path(path)) if path else [])]
    except SettingsError as error:
        yield problem("keys", str(error), "ollama-web-api keys list")
        return
    has_tokens = settings.jwt_secret or settings.jwt_public_key_file or settings.jwt_jwks_url
    if any(stranger in settings.anonymous_clients for stranger in _STRANGERS):
        yield problem(
            "access",
            "anybody who reaches this server may use it without a key",
            "name your own networks in ANONYMOUS_CLIENTS",
        )
    elif keys or has_tokens:
        yield ok("access", "strangers need a key or a token")
    else:
        yield warning(
            "access",
            f"only {settings.anonymous_clients} may call: there is no key",
            "ollama-web-api keys create --name NAME, with API_KEYS_FILE set",
        )
    if any(stranger in settings.trusted_proxies for stranger in _STRANGERS):
        yield problem(
            "access",
            "TRUSTED_PROXIES contains everybody, so anybody can claim to be any client",
            "name only your proxy's address",
        )


def _front(settings: Settings) -> Finding:
    """Check whether an HTTPS front on this machine would hide its clients."""
    trusts_loopback = ip_address("127.0.0.1") in settings.trusted_proxies
    if not trusts_loopback and settings.port != 443 and _listens(443):  # noqa: PLR2004 - HTTPS
        return warning(
            "front",
            "something here speaks HTTPS, but is not trusted: all its clients are strangers",
            "if it is the front of this gateway, TRUSTED_PROXIES=127.0.0.1/32",
        )
    if trusts_loopback and not parse_address(settings.host).is_loopback:
        return ok("front", "a front on this machine is trusted; others reach the gateway too")
    return ok("front", "clients keep their addresses")


def _certificate(name: str, path: Path) -> Finding:
    from cryptography import x509  # noqa: PLC0415 - few have a certificate here

    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        return problem("certificate", f"{name} cannot be read: {error}", f"check {path}")
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    if left.days < 0:
        return problem("certificate", f"{name} has expired", "renew it, then reload the service")
    if left.days < CERTIFICATE_NOTICE_DAYS:
        return warning(
            "certificate",
            f"{name} expires in {left.days} days",
            "renew it, then reload the service",
        )
    return ok("certificate", f"{name} is good for {left.days} days")


def _files() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < MIN_FILES:
        return warning(
            "files",
            f"a process started from here may open {soft} files, enough for {soft // 2} streams",
            "the unit in deploy/systemd has LimitNOFILE=65536; for a terminal, ulimit -n 65536",
        )
    return ok("files", f"{soft} may be open at once")


def _timeouts(settings: Settings) -> Finding:
    request_s, queue_s = settings.request_timeout_s, settings.queue_timeout_s
    if queue_s >= request_s:
        return warning(
            "time-outs",
            f"QUEUE_TIMEOUT_S ({queue_s:g}) is not below REQUEST_TIMEOUT_S ({request_s:g}), so a "
            "waiting request gets a 504 instead of a 503 with Retry-After",
            "lower QUEUE_TIMEOUT_S",
        )
    if request_s >= FRONT_TIMEOUT_S:
        return warning(
            "time-outs",
            f"REQUEST_TIMEOUT_S ({request_s:g}) is not below the {FRONT_TIMEOUT_S} s of the fronts "
            "in deploy, which then cut answers off",
            "raise theirs too",
        )
    return ok("time-outs", f"queue {queue_s:g} s < request {request_s:g} s < front 310 s")


def _store(settings: Settings) -> Finding:
    url = urlsplit(settings.rate_limit_storage)
    if _listens(url.port or 6379, url.hostname or ""):
        return ok("store", "RATE_LIMIT_STORAGE accepts connections")
    fate = "all requests are refused" if settings.rate_limit_fail_closed else "there are no limits"
    return problem("store", f"RATE_LIMIT_STORAGE is down, so {fate}", "systemctl status valkey")


def _listens(port: int, host: str = "127.0.0.1") -> bool:
    try:
        socket.create_connection((host, port), CONNECT_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _is_gateway(settings: Settings, port: int) -> bool:
    scheme = "https" if settings.ssl_certfile else "http"
    try:
        answer = httpx.get(
            f"{scheme}://127.0.0.1:{port}/api/health",
            verify=False,  # noqa: S501 - it is on this machine, and its certificate has a name
            trust_env=False,
            timeout=CONNECT_TIMEOUT_S,
        )
        return "api_version" in answer.json()
    except (httpx.HTTPError, ValueError):
        return False
