"""API keys as stored: never the key itself, only its SHA-256."""

import hashlib
import logging
import re
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from core.settings.environment import SettingsError
from core.settings.values import Rate

PREFIX = "owa_"
"""Starts every key, so that secret scanners and people recognize one."""
_TEXT = re.compile(r"owa_?([0-9a-f]{8})_?[A-Za-z0-9_-]+")

_logger = logging.getLogger(__name__)


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The stored part of a key, and what its holder may do."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
    id: Annotated[str, Meta(pattern=r"^[0-9a-f]{8}\Z")]
    """Part of the key's text, but not secret."""
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    created: Annotated[datetime, Meta(tz=True)]
    expires: Annotated[datetime, Meta(tz=True)] | None = None
    rate: Rate | None = None
    concurrent: Annotated[int, Meta(ge=1)] | None = None
    tokens: Rate | None = None
    models: tuple[Annotated[str, Meta(min_length=1)], ...] | None = None

    def expired(self) -> bool:
        """Return whether the key has expired."""
        return self.expires is not None and self.expires <= datetime.now(UTC)


def key_id(credential: str) -> str | None:
    """Return the ID in the text of a key; None if it is not one of our keys."""
    match = _TEXT.fullmatch(credential)
    return match[1] if match else None


def digest(credential: str) -> str:
    """Return the hash to store; 256 random bits need no salt and no slow hash."""
    return hashlib.sha256(credential.encode()).hexdigest()


def parse_keys(text: str | bytes) -> list[ApiKey]:
    """Parse a JSON array of keys.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError: `text` is anything else.
    """
    return msgspec.json.decode(text, type=list[ApiKey])


def read_keys(path: Path) -> list[ApiKey]:
    """Return the keys in the file at `path`; an empty list if it does not exist.

    Raises:
        SettingsError: the file is invalid, or writable by others than its owner.
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
            "API_KEYS_FILE is invalid: expected the JSON that python -m core.keys writes"
        ) from None
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SettingsError("API_KEYS_FILE is writable by users other than its owner: chmod 600")
    if mode & stat.S_IROTH:
        _logger.warning("API_KEYS_FILE is readable by every user on this machine: chmod 600")
    return keys
