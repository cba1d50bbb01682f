"""API keys in AWS Secrets Manager or Parameter Store, or in a Redis that gateways share.

AWS' are read through the AWS Parameters and Secrets Lambda Extension. It answers on loopback, with
the function's permissions, and only during a request, so nothing is read at startup:
https://docs.aws.amazon.com/systems-manager/latest/userguide/ps-integration-lambda-extensions.html
"""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from time import monotonic
from urllib.parse import quote

import msgspec

from core.contract.retryable import KeysUnavailable
from core.keys import shared
from core.keys.records import ApiKey, parse_keys
from core.settings.schema import Settings

REFRESH_S = 30
"""The extension caches what it reads, too: for SECRETS_MANAGER_TTL or SSM_PARAMETER_STORE_TTL."""
RETRY_S = 5
TIMEOUT_S = 5

_PATHS = {
    "secretsmanager": "/secretsmanager/get?secretId={}",
    "ssm": "/systemsmanager/parameters/get?withDecryption=true&name={}",
}

_logger = logging.getLogger(__name__)


class _Parameter(msgspec.Struct, rename="pascal"):
    value: str


class _Answer(msgspec.Struct, rename="pascal"):
    secret_string: str | None = None
    parameter: _Parameter | None = None


class _Members(msgspec.Struct):
    keys: str = msgspec.field(name="API_KEYS")


class SecretKeys:
    """Reads API_KEYS_SECRET when it is needed, and again every REFRESH_S seconds of use."""

    def __init__(self, settings: Settings, use: Callable[[list[ApiKey]], None]) -> None:
        """Call `use` with the keys whenever they have been read."""
        self._shared = shared.SharedKeys(settings) if shared.are_shared(settings) else None
        service, _, name = settings.api_keys_secret.partition(":")
        self._path = _PATHS.get(service, "").format(quote(name, safe=""))
        self._port = settings.parameters_secrets_extension_http_port
        self._token = settings.aws_session_token
        self._use = use
        self._known = False
        self._next_read = 0.0
        self._reading = asyncio.Lock()

    async def refresh(self) -> None:
        """Read the keys if a read is due; after a failure, the keys read before stay valid.

        Raises:
            KeysUnavailable: none have been read yet.
        """
        async with self._reading:
            if monotonic() >= self._next_read:
                await self._read()
        if not self._known:
            raise KeysUnavailable(RETRY_S)

    async def _read(self) -> None:
        try:
            keys = await asyncio.to_thread(self._fetch)
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            problem = str(error) if isinstance(error, OSError) else "it contains no valid API keys"
            _logger.error("API_KEYS_SECRET cannot be read: %s", problem)
            self._next_read = monotonic() + RETRY_S
        else:
            self._use(keys)
            self._known = True
            self._next_read = monotonic() + (shared.REFRESH_S if self._shared else REFRESH_S)

    def _fetch(self) -> list[ApiKey]:
        return self._shared.fetch() if self._shared else _keys_in(self._get())

    def _get(self) -> bytes:
        from http.client import HTTPConnection, HTTPException  # noqa: PLC0415 - rarely needed

        connection = HTTPConnection("localhost", self._port, timeout=TIMEOUT_S)
        try:
            headers = {"X-Aws-Parameters-Secrets-Token": self._token}
            connection.request("GET", self._path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
        except HTTPException as error:
            raise OSError(f"the extension does not speak HTTP ({type(error).__name__})") from None
        finally:
            connection.close()
        if answer.status != HTTPStatus.OK:
            raise OSError(f"the extension answered {answer.status}. May the function read it?")
        return body


def _keys_in(body: bytes) -> list[ApiKey]:
    """Return the keys of a secret: an array of them, or an object with that text as API_KEYS."""
    answer = msgspec.json.decode(body, type=_Answer)
    text = answer.parameter.value if answer.parameter else answer.secret_string or ""
    if text.lstrip().startswith("{"):
        text = msgspec.json.decode(text, type=_Members).keys
    return parse_keys(text)
