"""Loads a certificate with its key, and says what is wrong with them."""

import ssl
from typing import TYPE_CHECKING, NoReturn

from core.settings.environment import SettingsError

if TYPE_CHECKING:
    from core.settings.schema import Settings

_MISMATCHES = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}
"""The last: the certificate is for a key of another type, such as RSA for one of EC."""


def load_pair(
    context: ssl.SSLContext, certificate: str, key: str, *, names: tuple[str, str]
) -> None:
    """Let `context` use the PEM file `certificate`, and `key` if that is not in the same file.

    Args:
        context: what to load them into; a failure may leave it with half of the pair.
        certificate: its path.
        key: its path, or "".
        names: their settings, for error texts.

    Raises:
        SettingsError: they cannot be read, do not fit each other, or need a passphrase.
    """
    name_of_certificate, name_of_key = names

    def refuse() -> NoReturn:  # otherwise OpenSSL asks for a passphrase on the terminal
        raise SettingsError(
            f"{name_of_key if key else name_of_certificate} is encrypted: expected a key without "
            "a passphrase, as openssl pkey -in FILE prints"
        )

    try:
        context.load_cert_chain(certificate, key or None, password=refuse)
    except OSError as error:  # includes ssl.SSLError
        if getattr(error, "reason", None) in _MISMATCHES:
            raise SettingsError(
                f"{name_of_key} does not fit {name_of_certificate}: expected the key that the "
                "certificate was made for"
            ) from None
        raise SettingsError(
            f"{name_of_certificate} or {name_of_key} is invalid: expected the path of a readable "
            "PEM file"
        ) from None


def load_own(context: ssl.SSLContext, settings: "Settings") -> None:
    """Let `context` use this server's own certificate; raises SettingsError as `load_pair` does."""
    names = ("SSL_CERTFILE", "SSL_KEYFILE")
    load_pair(context, settings.ssl_certfile, settings.ssl_keyfile, names=names)
