"""The way to Ollama: its transport, its TLS, and what a failure of the network means."""

import logging
import ssl

import httpx

from core.environment import SettingsError
from core.errors import OllamaError
from core.settings import Settings
from core.transport import HTTPTransport

_logger = logging.getLogger(__name__)


def transport_to_ollama(settings: Settings) -> HTTPTransport:
    """Return the transport to OLLAMA_BASE_URL; it connects when it is used.

    Raises:
        SettingsError: a file that TLS needs is unusable.
    """
    secure = settings.ollama_base_url.startswith("https:")
    return HTTPTransport(
        httpx.URL(settings.ollama_base_url),
        connect_timeout_s=settings.ollama_connect_timeout_s,
        ssl_context=_ssl_context(settings) if secure else None,
    )


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    try:
        if settings.ollama_ca_file:
            context = ssl.create_default_context(cafile=settings.ollama_ca_file)
        else:
            context = httpx.create_ssl_context(trust_env=False)
        if settings.ollama_client_cert:
            key = settings.ollama_client_key or None
            context.load_cert_chain(settings.ollama_client_cert, key)
    except OSError:  # ssl.SSLError is one too
        raise SettingsError(
            "OLLAMA_CA_FILE, OLLAMA_CLIENT_CERT or OLLAMA_CLIENT_KEY is unusable: expected the "
            "path of a readable PEM file"
        ) from None
    return context


class _NetworkErrors:
    """Tells the client what a network failure means, and the log what it was."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, class_: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if isinstance(error, httpx.TransportError):
            _logger.warning("%s: %s", type(error).__name__, error)
            if isinstance(error, httpx.ConnectTimeout):
                text = "Ollama did not accept a connection in time. Is its machine up?"
            elif isinstance(error, httpx.ConnectError):
                text = "cannot connect to Ollama. Is it running? Check OLLAMA_BASE_URL"
            else:
                text = (
                    "the connection to Ollama broke before the answer's end. Send the message again"
                )
            raise OllamaError(text) from error


network_errors = _NetworkErrors()
"""`with network_errors:` makes an `OllamaError` of what httpx raises."""
