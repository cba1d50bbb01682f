"""Settings that would do nothing without another one."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from core.settings.environment import SettingsError

if TYPE_CHECKING:
    from core.settings.schema import Settings


def check(settings: "Settings") -> None:
    """Raise SettingsError if a setting lacks another one that it needs."""
    for problem in _problems(settings):
        raise SettingsError(problem)


def _problems(settings: "Settings") -> Iterator[str]:
    if settings.ssl_keyfile and not settings.ssl_certfile:
        yield "SSL_KEYFILE needs SSL_CERTFILE, the certificate of that key"
    if settings.ollama_client_key and not settings.ollama_client_cert:
        yield "OLLAMA_CLIENT_KEY needs OLLAMA_CLIENT_CERT, the certificate of that key"
    if not (settings.jwt_secret or settings.jwt_public_key_file or settings.jwt_jwks_url):
        for name in ("jwt_audience", "jwt_issuer"):
            if getattr(settings, name):
                yield (
                    f"{name.upper()} needs JWT_SECRET, JWT_PUBLIC_KEY_FILE or JWT_JWKS_URL, to "
                    "verify tokens with"
                )
    if settings.share_queue == "always" and settings.rate_limit_storage == "memory://":
        yield "SHARE_QUEUE=always needs RATE_LIMIT_STORAGE=redis://..., where the queue is shared"
