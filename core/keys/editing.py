"""Edits API_KEYS_FILE: creates, revokes and rotates keys."""

import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypedDict, Unpack

import msgspec

from core.keys.records import PREFIX, ApiKey, digest, read_keys


class KeysError(Exception):
    """The requested change cannot be made."""


class Limits(TypedDict, total=False):
    """Limits of a key; the fields are those of `ApiKey`."""

    rate: str | None
    concurrent: int | None
    tokens: str | None
    models: tuple[str, ...] | None


def create(
    path: Path,
    name: str,
    *,
    lifetime: timedelta | None = None,
    alphanumeric: bool = False,
    **limits: Unpack[Limits],
) -> str:
    """Add a key to the file at `path` and return its text, which is stored nowhere.

    An `alphanumeric` one has letters and digits only.

    Raises:
        KeysError: the name is taken, or a value is invalid.
        SettingsError: the file is invalid.
    """
    text, fields = _new_key(lifetime, alphanumeric=alphanumeric)
    try:
        key = msgspec.convert({"name": name, **fields, **limits}, ApiKey)
    except msgspec.ValidationError as error:
        raise KeysError(f"Cannot create the key: {error}") from None
    with _edited(path) as keys:
        if any(other.name == name for other in keys):
            raise KeysError(f"A key named {name} already exists. Rotate or revoke it")
        keys.append(key)
    return text


def revoke(path: Path, name: str) -> None:
    """Remove the key named `name`; raises KeysError if there is none."""
    with _edited(path) as keys:
        del keys[_find(keys, name)]


def rotate(path: Path, name: str, *, alphanumeric: bool = False) -> str:
    """Replace the key with a new one of the same lifetime, and return its text.

    The old key is invalid from then on.

    Raises:
        KeysError: there is no key named `name`.
        SettingsError: the file is invalid.
    """
    with _edited(path) as keys:
        index = _find(keys, name)
        old = keys[index]
        lifetime = old.expires - old.created if old.expires else None
        text, fields = _new_key(lifetime, alphanumeric=alphanumeric)
        keys[index] = msgspec.structs.replace(old, **fields)
    return text


def _new_key(lifetime: timedelta | None, *, alphanumeric: bool) -> tuple[str, dict[str, Any]]:
    """Return the text of a new key, and the fields to store."""
    key_id = secrets.token_hex(4)
    text = f"{PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
    if alphanumeric:
        text = f"{PREFIX.rstrip('_')}{key_id}{secrets.token_hex(32)}"
    now = datetime.now(UTC).replace(microsecond=0)
    expires = now + lifetime if lifetime else None
    return text, {"id": key_id, "sha256": digest(text), "created": now, "expires": expires}


def _find(keys: Sequence[ApiKey], name: str) -> int:
    for index, key in enumerate(keys):
        if key.name == name:
            return index
    raise KeysError(f"There is no key named {name}")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other writers of the file at `path` waiting."""
    with Path(f"{path}.lock").open("a") as lock:
        if os.geteuid() == 0:
            _give_to_owner(path, lock.fileno())
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _edited(path: Path) -> Iterator[list[ApiKey]]:
    """Yield the keys in the file at `path` for editing, then write them; other writers wait."""
    with locked(path):
        keys = read_keys(path)
        yield keys
        _write(path, keys)


def _write(path: Path, keys: Sequence[ApiKey]) -> None:
    """Replace the file atomically: no reader, and no crash, ever sees half of it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
        try:
            file.write(msgspec.json.format(msgspec.json.encode(keys)) + b"\n")
            file.flush()
            _give_to_owner(path, file.fileno())
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink()
            raise


def _give_to_owner(path: Path, descriptor: int) -> None:
    """Keep the file at `path`, and its lock, with the server's user, even if root edits it."""
    if path.exists():
        os.fchown(descriptor, path.stat().st_uid, path.stat().st_gid)
