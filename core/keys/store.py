"""The API keys that this server knows, each by the SHA-256 of its text."""

import hmac
import logging
import time
from pathlib import Path
from typing import Self

import msgspec

from core.contract.errors import InvalidCredentials
from core.keys.records import PREFIX, ApiKey, digest, parse_keys, read_keys
from core.settings.environment import SettingsError
from core.settings.schema import Settings

LOOK_INTERVAL_S = 1
"""Seconds after which API_KEYS_FILE is looked at again, if a key is used."""

_logger = logging.getLogger(__name__)


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
