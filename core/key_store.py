"""The API keys that this server knows, each by the SHA-256 of its text."""

import hashlib
import hmac
import logging
import stat
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Self

import msgspec
from msgspec import Meta

from core.environment import SettingsError
from core.errors import InvalidCredentials
from core.settings import Rate, Settings

PREFIX = "owa_"
"""What every key starts with: secret scanners and people know it by that."""
LOOK_INTERVAL_S = 1
"""Seconds after which API_KEYS_FILE is looked at again, if a key is used."""

_logger = logging.getLogger(__name__)


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is stored of a key, and what its holder may do."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
    id: Annotated[str, Meta(pattern=r"^[0-9a-f]{8}\Z")]
    """Stands in the key's text, and is no secret."""
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    created: Annotated[datetime, Meta(tz=True)]
    expires: Annotated[datetime, Meta(tz=True)] | None = None
    rate: Rate | None = None
    concurrent: Annotated[int, Meta(ge=1)] | None = None
    models: tuple[Annotated[str, Meta(min_length=1)], ...] | None = None

    def expired(self) -> bool:
        """Tell whether its time is over."""
        return self.expires is not None and self.expires <= datetime.now(UTC)


def digest(credential: str) -> str:
    """Return what is stored of a key; 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(credential.encode()).hexdigest()


def parse_keys(text: str | bytes) -> list[ApiKey]:
    """Return the keys of a JSON array.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError: it is none, or not of keys.
    """
    return msgspec.json.decode(text, type=list[ApiKey])


def read_keys(path: Path) -> list[ApiKey]:
    """Return the keys in the file at `path`; none if there is no such file.

    Raises:
        SettingsError: the file is unusable, or others than its owner may write it.
    """
    try:
        mode = path.stat().st_mode
        keys = parse_keys(path.read_bytes())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SettingsError(f"API_KEYS_FILE cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise SettingsError(
            "API_KEYS_FILE is unusable: expected the JSON that python -m core.keys writes"
        ) from None
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SettingsError("API_KEYS_FILE can be written by others than its owner: chmod 600")
    if mode & stat.S_IROTH:
        _logger.warning("API_KEYS_FILE can be read by everybody on this machine: chmod 600")
    return keys


class KeyStore:
    """Knows the keys of API_KEYS and API_KEYS_FILE, and notices when the file changes."""

    def __init__(self, *, inline: str = "", path: Path | None = None) -> None:
        """Read the keys of the JSON text `inline` and of the file at `path`.

        Raises:
            SettingsError: one of them is unusable.
        """
        try:
            self._inline = parse_keys(inline) if inline else []
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise SettingsError(
                "API_KEYS is unusable: expected the JSON that python -m core.keys writes"
            ) from None
        self._path = path
        self._next_look = 0.0
        self._read()

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Read the keys that `settings` names; raises SettingsError if they are unusable."""
        path = Path(settings.api_keys_file) if settings.api_keys_file else None
        return cls(inline=settings.api_keys, path=path)

    def authenticate(self, credential: str) -> ApiKey:
        """Return the key whose text is `credential`.

        Raises:
            InvalidCredentials: there is none, or it has expired.
        """
        self._look()
        key = self._keys.get(credential.removeprefix(PREFIX).partition("_")[0])
        if key is None or not hmac.compare_digest(key.sha256, digest(credential)):
            raise InvalidCredentials("the API key is unknown or has been revoked")
        if key.expired():
            raise InvalidCredentials("the API key has expired")
        return key

    def reload(self) -> None:
        """Read the file again; one that is unusable is logged, and its last good keys stay."""
        try:
            self._read()
        except SettingsError as error:
            _logger.error("%s. The keys that were read before stay valid", error)

    def _look(self) -> None:
        if self._path is None or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + LOOK_INTERVAL_S
        if self._version != _version(self._path):
            self.reload()

    def _read(self) -> None:
        keys = self._inline
        if self._path:
            self._version = _version(self._path)  # before the content: a change is seen later
            keys = keys + read_keys(self._path)
        self._keys = {key.id: key for key in keys}


def _version(path: Path) -> tuple[int, ...] | None:
    """Return what changes when the file does; None if it cannot be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode
