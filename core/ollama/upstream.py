"""The upstream, Ollama: its connections, its TLS settings, and its health check.

Nothing here imports httpx: the health check of a cold function would take a sixth longer.
"""

import asyncio
import logging
import ssl
from http import HTTPStatus
from urllib.parse import quote, urlsplit

import msgspec

from core.ollama.connection import UpstreamError
from core.ollama.pool import Pool, request_bytes
from core.settings.certificates import load_pair
from core.settings.environment import SettingsError
from core.settings.schema import Settings

HEALTH_TIMEOUT_S = 1.5
"""The contract promises an answer within 2 s; browser clients give up after 3."""

_PATH_CHARACTERS = "/%:@!$&'()*+,;=~"
"""Characters that stay unescaped in a path, by RFC 3986."""
_logger = logging.getLogger(__name__)


class _Version(msgspec.Struct):
    version: str


class Upstream:
    """The server that OLLAMA_BASE_URL and its related settings describe."""

    def __init__(self, settings: Settings) -> None:
        """Prepare to connect on demand.

        Raises:
            SettingsError: the URL, or a file that TLS needs, is invalid.
        """
        try:
            url = urlsplit(settings.ollama_base_url)
            port = {"http": 80, "https": 443}[url.scheme] if url.port is None else url.port
            host = url.netloc if url.netloc.isascii() else url.netloc.encode("idna").decode()
        except ValueError:  # includes UnicodeError
            raise SettingsError(
                "OLLAMA_BASE_URL is invalid: expected a URL with a valid host and port"
            ) from None
        assert url.hostname  # guaranteed by the setting's pattern
        self.pool = Pool(
            url.hostname,
            port,
            connect_timeout_s=settings.ollama_connect_timeout_s,
            ssl_context=_ssl_context(settings) if url.scheme == "https" else None,
        )
        """The connections to the server."""
        own = {"host": host, "user-agent": "ollama-web-api"}
        tunnel = {name.lower(): value for name, value in settings.ollama_headers.items()}
        self.headers = [(name.encode(), value.encode()) for name, value in (own | tunnel).items()]
        """Sent with every request: OLLAMA_HEADERS, and nothing from the client."""
        self._version = quote(f"{url.path.rstrip('/')}/api/version", _PATH_CHARACTERS).encode()

    async def is_connected(self) -> bool:
        """Return, within two seconds, whether an Ollama server answers; no model is loaded."""
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                status, _, body = await self.pool.send(
                    request_bytes(b"GET", self._version, self.headers)
                )
                content = b""
                try:
                    while data := await body.read():
                        content += data
                finally:
                    body.close()
            msgspec.json.decode(content, type=_Version)
        except (UpstreamError, TimeoutError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            _logger.warning("Ollama does not answer: %s", str(error) or type(error).__name__)
            return False
        return status == HTTPStatus.OK


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ollama_ca_file or _ca_bundle())
    except OSError:  # includes ssl.SSLError
        raise SettingsError(
            "OLLAMA_CA_FILE is invalid: expected the path of a readable PEM file"
        ) from None
    if settings.ollama_client_cert:
        load_pair(
            context,
            settings.ollama_client_cert,
            settings.ollama_client_key,
            names=("OLLAMA_CLIENT_CERT", "OLLAMA_CLIENT_KEY"),
        )
    return context


def _ca_bundle() -> str:
    """Return the path of a bundle of the CAs that browsers trust."""
    import certifi  # noqa: PLC0415 - only public certificates need it

    return certifi.where()
