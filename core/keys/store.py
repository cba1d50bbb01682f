"""The API keys that this server accepts, each checked by its SHA-256."""

import hmac
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from core.contract.errors import InvalidCredentials
from core.keys.records import ApiKey, digest, key_id, parse_keys, read_keys
from core.settings.environment import SettingsError
from core.settings.schema import Settings

if TYPE_CHECKING:
    from core.keys.secret import SecretKeys

CHECK_INTERVAL_S = 1
"""Minimum seconds between checks of API_KEYS_FILE for changes, which happen when a key is used."""

_logger = logging.getLogger(__name__)


class KeyStore:
    """Holds the keys of API_KEYS, API_KEYS_FILE and API_KEYS_SECRET, and notices changes."""

    _secret: "SecretKeys | None" = None

    def __init__(self, *, inline: str = "", path: Path | None = None) -> None:
        """Read the keys from the JSON text `inline` and the file at `path`.

        Raises:
            SettingsError: one of them is invalid.
        """
        try:
            self._inline = parse_keys(inline) if inline else []
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise SettingsError(
                "API_KEYS is invalid: expected the JSON that python -m core.keys writes"
            ) from None
        self._path = path
        self._file_keys: list[ApiKey] = []
        self._secret_keys: list[ApiKey] = []
        self._next_check = 0.0
        self._version: tuple[int, ...] | None = None
        self._existed = False
        self._read()
        if path and not self._existed:
            _logger.warning("API_KEYS_FILE does not exist: none of its keys is valid")

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Read the keys that `settings` names; raises SettingsError if they are invalid."""
        path = Path(settings.api_keys_file) if settings.api_keys_file else None
        store = cls(inline=settings.api_keys, path=path)
        if settings.api_keys_secret:
            from core.keys.secret import SecretKeys  # noqa: PLC0415 - few servers have one

            store._secret = SecretKeys(settings, store._use_secret)
        return store

    async def refresh(self) -> None:
        """Read API_KEYS_SECRET if a read is due.

        Raises:
            KeysUnavailable: it could not be read yet.
        """
        if self._secret:
            await self._secret.refresh()

    def authenticate(self, credential: str) -> ApiKey:
        """Return the key whose text is `credential`.

        Raises:
            InvalidCredentials: there is no such key, or it has expired.
        """
        self._reload_if_changed()
        key = self._keys.get(key_id(credential) or "")
        if key is None or not hmac.compare_digest(key.sha256, digest(credential)):
            name = key.name if key else ""
            raise InvalidCredentials("the API key is unknown or has been revoked", key=name)
        if key.expired():
            raise InvalidCredentials("the API key has expired", key=key.name)
        return key

    def reload(self) -> None:
        """Read the file again; if it is invalid or gone, log that and keep the last good keys."""
        try:
            self._read()
        except SettingsError as error:
            _logger.error("%s. The keys loaded before stay valid", error)

    def _reload_if_changed(self) -> None:
        if self._path is None or time.monotonic() < self._next_check:
            return
        self._next_check = time.monotonic() + CHECK_INTERVAL_S
        if self._version != _version(self._path):
            self.reload()

    def _read(self) -> None:
        if self._path:
            self._version = _version(self._path)  # first: a change while reading is noticed
            keys = read_keys(self._path)
            if self._existed and not (self._version and _version(self._path)):
                self._version = None
                raise SettingsError("API_KEYS_FILE is gone")
            self._existed = bool(self._version)
            self._file_keys = keys
        self._combine()

    def _use_secret(self, keys: list[ApiKey]) -> None:
        self._secret_keys = keys
        self._combine()  # does not read the file, which may be invalid now

    def _combine(self) -> None:
        keys = (*self._inline, *self._file_keys, *self._secret_keys)
        self._keys = {key.id: key for key in keys}


def _version(path: Path) -> tuple[int, ...] | None:
    """Return a value that changes whenever the file does; None if it cannot be accessed."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode
