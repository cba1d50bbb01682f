"""Settings that would do nothing without another one."""

from typing import TYPE_CHECKING

from core.settings.environment import SettingsError

if TYPE_CHECKING:
    from core.settings.schema import Settings

_TOKENS = "JWT_SECRET, JWT_PUBLIC_KEY_FILE or JWT_JWKS_URL, to verify tokens with"


def check(settings: "Settings") -> None:
    """Raise SettingsError if a setting lacks another one that it needs."""
    verifies = settings.jwt_secret or settings.jwt_public_key_file or settings.jwt_jwks_url
    is_shared = settings.rate_limit_storage != "memory://"
    for name, is_set, has_other, needed in (
        ("SSL_KEYFILE", settings.ssl_keyfile, settings.ssl_certfile,
         "SSL_CERTFILE, the certificate of that key"),
        ("OLLAMA_CLIENT_KEY", settings.ollama_client_key, settings.ollama_client_cert,
         "OLLAMA_CLIENT_CERT, the certificate of that key"),
        ("JWT_AUDIENCE", settings.jwt_audience, verifies, _TOKENS),
        ("JWT_ISSUER", settings.jwt_issuer, verifies, _TOKENS),
        ("SHARE_QUEUE=always", settings.share_queue == "always", is_shared,
         "RATE_LIMIT_STORAGE=redis://..., where the queue is shared"),
    ):  # fmt: skip
        if is_set and not has_other:
            raise SettingsError(f"{name} needs {needed}")
