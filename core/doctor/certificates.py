"""How long certificates are valid: those in files, and those that servers present."""

import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from core.doctor.findings import Finding, ok, problem, warning
from core.settings.certificates import load_own
from core.settings.environment import SettingsError
from core.settings.schema import Settings

CONNECT_TIMEOUT_S = 2
CERTIFICATE_NOTICE_DAYS = 14


def examine(settings: Settings) -> Iterator[Finding]:
    """Check the certificates of this server, of a front on this machine, and of a tunnel."""
    for name in ("ssl_certfile", "ollama_client_cert", "ollama_ca_file"):
        if path := getattr(settings, name):
            try:
                pem = Path(path).read_text("utf-8")
                yield _validity(name.upper(), pem)
                if name == "ssl_certfile":
                    load_own(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), settings)
            except SettingsError as error:
                yield problem("certificate", str(error), f"check {path}")
            except (OSError, ValueError) as error:
                text = f"{name.upper()} cannot be read: {error}"
                yield problem("certificate", text, f"check {path}")
    ollama = urlsplit(settings.ollama_base_url)
    shown = {"the front on port 443": ("127.0.0.1", 443, next(iter(settings.allowed_hosts), ""))}
    if ollama.scheme == "https" and ollama.hostname:
        shown["OLLAMA_BASE_URL's"] = (ollama.hostname, ollama.port or 443, ollama.hostname)
    for name, server in shown.items():
        if pem := _shown_by(*server):
            yield _validity(name, pem)


def _shown_by(host: str, port: int, name: str) -> str:
    """Return the certificate of a server; "" if there is none, or none for `name`."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # an expired one is just what it looks for
    try:
        with (
            socket.create_connection((host, port), CONNECT_TIMEOUT_S) as connection,
            context.wrap_socket(connection, server_hostname=name or None) as server,
        ):
            return ssl.DER_cert_to_PEM_cert(server.getpeercert(binary_form=True) or b"")
    except (OSError, ValueError):  # the latter for an invalid name
        return ""


def _validity(name: str, pem: str) -> Finding:
    from cryptography import x509  # noqa: PLC0415 - few have a certificate here

    certificate = x509.load_pem_x509_certificate(pem.encode())
    now = datetime.now(UTC)
    if now < certificate.not_valid_before_utc:
        return problem(
            "certificate",
            f"{name} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC",
            "is this machine's clock right? If so, use the old one until then",
        )
    left = certificate.not_valid_after_utc - now
    if left.days < 0:
        return problem("certificate", f"{name} has expired", "renew it, then reload the service")
    if left.days < CERTIFICATE_NOTICE_DAYS:
        return warning(
            "certificate",
            f"{name} expires in {left.days} days",
            "renew it, then reload the service",
        )
    return ok("certificate", f"{name} is valid for {left.days} days")
