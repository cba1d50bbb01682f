"""Which settings need another one."""

import pytest

from core.settings.environment import SettingsError
from core.settings.schema import Settings


@pytest.mark.parametrize(
    ("environ", "needed"),
    [
        ({"SSL_KEYFILE": "/key.pem"}, "SSL_CERTFILE"),
        ({"OLLAMA_CLIENT_KEY": "/key.pem"}, "OLLAMA_CLIENT_CERT"),
        ({"JWT_AUDIENCE": "api"}, "JWT_SECRET, JWT_PUBLIC_KEY_FILE or JWT_JWKS_URL"),
        ({"JWT_ISSUER": "https://issuer.example"}, "JWT_SECRET"),
        ({"SHARE_QUEUE": "always"}, "RATE_LIMIT_STORAGE=redis://"),
        ({"SHARE_QUEUE": "always", "RATE_LIMIT_STORAGE": "memory://"}, "RATE_LIMIT_STORAGE"),
    ],
)
def test_a_setting_that_would_do_nothing_alone_is_refused(
    environ: dict[str, str], needed: str
) -> None:
    (name, *_) = environ
    with pytest.raises(SettingsError, match=rf"^{name}\b.* needs {needed}"):
        Settings.from_env(environ)


@pytest.mark.parametrize(
    "environ",
    [
        {"SSL_KEYFILE": "/key.pem", "SSL_CERTFILE": "/cert.pem"},
        {"OLLAMA_CLIENT_KEY": "/key.pem", "OLLAMA_CLIENT_CERT": "/cert.pem"},
        {"JWT_AUDIENCE": "api", "JWT_ISSUER": "i", "JWT_JWKS_URL": "https://issuer.example/keys"},
        {"SHARE_QUEUE": "always", "RATE_LIMIT_STORAGE": "redis://127.0.0.1"},
        {"SHARE_QUEUE": "never"},
    ],
)
def test_with_what_it_needs_it_is_accepted(environ: dict[str, str]) -> None:
    Settings.from_env(environ)
