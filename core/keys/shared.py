"""API keys in Redis or Valkey, for several gateways: API_KEYS_SECRET=redis:NAME.

What `python -m core.keys` changes on the machine with API_KEYS_FILE applies to every gateway.
"""

from pathlib import Path
from typing import Any

from core.keys.records import ApiKey, parse_keys, read_keys
from core.settings.environment import SettingsError
from core.settings.schema import Settings

_PREFIX = "redis:"
REFRESH_S = 1
TIMEOUT_S = 0.5
"""How long the store may delay a request."""


def are_shared(settings: Settings) -> bool:
    """Return whether the gateways share their keys in Redis or Valkey."""
    return settings.api_keys_secret.startswith(_PREFIX)


class SharedKeys:
    """The value NAME on the server that RATE_LIMIT_STORAGE names."""

    def __init__(self, settings: Settings) -> None:
        """Connect on first use.

        Raises:
            SettingsError: there is no such server.
        """
        from redis import Redis  # noqa: PLC0415 - only gateways that share their keys need it

        if settings.rate_limit_storage == "memory://":
            raise SettingsError("API_KEYS_SECRET=redis:... needs RATE_LIMIT_STORAGE=redis://...")
        self._name = settings.api_keys_secret.removeprefix(_PREFIX)
        self._redis: Any = Redis.from_url(
            settings.rate_limit_storage,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
        )

    def fetch(self) -> list[ApiKey]:
        """Return the keys.

        Raises:
            OSError: the server does not answer, or has no keys; those known before stay valid.
            msgspec.DecodeError, UnicodeDecodeError: the value is something else.
        """
        text = self._call("get")
        if text is None:
            raise OSError(f"{self._name} does not exist. Run: python -m core.keys publish")
        return parse_keys(text)

    def publish(self, path: Path) -> None:
        """Replace the keys with those in the file at `path`.

        Raises:
            OSError: the server does not answer, or there is no such file.
            SettingsError: the file is invalid.
        """
        read_keys(path)  # the other gateways would refuse anything else
        self._call("set", path.read_bytes())

    def _call(self, command: str, *arguments: bytes) -> Any:
        from redis.exceptions import RedisError  # noqa: PLC0415

        try:
            return getattr(self._redis, command)(self._name, *arguments)
        except RedisError as error:
            raise OSError(f"RATE_LIMIT_STORAGE does not answer ({type(error).__name__})") from None
