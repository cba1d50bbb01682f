"""The way to Ollama: its connections, its TLS, and whether Ollama is at its other end.

Nothing here needs httpx, whose import is a sixth of what a cold function takes to tell its health.
"""

import asyncio
import logging
import ssl
from http import HTTPStatus
from urllib.parse import quote, urlsplit

import msgspec

from core.ollama.connection import UpstreamError, request_bytes
from core.ollama.pool import Pool
from core.settings.environment import SettingsError
from core.settings.schema import Settings

HEALTH_TIMEOUT_S = 1.5
"""The contract promises an answer within 2 s; browser clients give up after 3."""

_PATH_CHARACTERS = "/%:@!$&'()*+,;=~"
"""What a path has in it as it is, by RFC 3986."""
_logger = logging.getLogger(__name__)


class _Version(msgspec.Struct):
    version: str


class Upstream:
    """What OLLAMA_BASE_URL and the settings beside it name."""

    def __init__(self, settings: Settings) -> None:
        """Connect when needed.

        Raises:
            SettingsError: the URL, or a file that TLS needs, is unusable.
        """
        try:
            url = urlsplit(settings.ollama_base_url)
            port = {"http": 80, "https": 443}[url.scheme] if url.port is None else url.port
            host = url.netloc if url.netloc.isascii() else url.netloc.encode("idna").decode()
        except ValueError:  # UnicodeError is one too
            raise SettingsError(
                "OLLAMA_BASE_URL is unusable: expected a URL with a valid host and port"
            ) from None
        assert url.hostname  # by the setting's pattern
        self.pool = Pool(
            url.hostname,
            port,
            connect_timeout_s=settings.ollama_connect_timeout_s,
            ssl_context=_ssl_context(settings) if url.scheme == "https" else None,
        )
        """The connections to it."""
        own = {"host": host, "user-agent": "ollama-web-api"}
        tunnel = {name.lower(): value for name, value in settings.ollama_headers.items()}
        self.headers = [(name.encode(), value.encode()) for name, value in (own | tunnel).items()]
        """Those of every request: OLLAMA_HEADERS, and nothing of the client's."""
        self._version = quote(f"{url.path.rstrip('/')}/api/version", _PATH_CHARACTERS).encode()

    async def is_connected(self) -> bool:
        """Tell, within two seconds, whether an Ollama server answers; no model is loaded."""
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
            _logger.warning("no Ollama there: %s", str(error) or type(error).__name__)
            return False
        return status == HTTPStatus.OK


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ollama_ca_file or _authorities())
        if settings.ollama_client_cert:
            key = settings.ollama_client_key or None
            context.load_cert_chain(settings.ollama_client_cert, key)
    except OSError:  # ssl.SSLError is one too
        raise SettingsError(
            "OLLAMA_CA_FILE, OLLAMA_CLIENT_CERT or OLLAMA_CLIENT_KEY is unusable: expected the "
            "path of a readable PEM file"
        ) from None
    return context


def _authorities() -> str:
    """Return the file of the authorities that browsers trust."""
    import certifi  # noqa: PLC0415 - only a way over the internet needs it

    return certifi.where()
