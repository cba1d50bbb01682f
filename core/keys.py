"""`python -m core.keys` makes, lists, revokes and rotates the API keys in API_KEYS_FILE."""

import argparse
import fcntl
import os
import re
import secrets
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypedDict, Unpack

import msgspec

from core.environment import SettingsError
from core.key_store import PREFIX, ApiKey, digest, read_keys
from core.settings import Settings

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


class KeysError(Exception):
    """What was asked for cannot be done."""


class Limits(TypedDict, total=False):
    """What a key may be limited to; the fields are those of an `ApiKey`."""

    rate: str | None
    concurrent: int | None
    models: tuple[str, ...] | None


def create(
    path: Path, name: str, *, lifetime: timedelta | None = None, **limits: Unpack[Limits]
) -> str:
    """Add a key to the file at `path` and return its text, which is not stored anywhere.

    Raises:
        KeysError: there is a key of that name, or one of the values is unusable.
        SettingsError: the file is unusable.
    """
    text, fields = _new_key(lifetime)
    try:
        key = msgspec.convert({"name": name, **fields, **limits}, ApiKey)
    except msgspec.ValidationError as error:
        raise KeysError(f"The key cannot be made: {error}") from None
    with _edited(path) as keys:
        if any(other.name == name for other in keys):
            raise KeysError(f"There is a key named {name}. Rotate or revoke it")
        keys.append(key)
    return text


def revoke(path: Path, name: str) -> None:
    """Remove the key; raises KeysError if there is none of that name."""
    with _edited(path) as keys:
        del keys[_find(keys, name)]


def rotate(path: Path, name: str) -> str:
    """Give the key a new text, which is returned, and its lifetime anew; the old one is void.

    Raises:
        KeysError: there is none of that name.
        SettingsError: the file is unusable.
    """
    with _edited(path) as keys:
        index = _find(keys, name)
        old = keys[index]
        text, fields = _new_key(old.expires - old.created if old.expires else None)
        keys[index] = msgspec.structs.replace(old, **fields)
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a key goes to the standard output, all else to the error output."""
    options = _parser().parse_args(arguments)
    try:
        path = Settings.from_env(os.environ).api_keys_file
        if not path:
            sys.exit("Set API_KEYS_FILE to the path of the file in which the keys are")
        _run(options, Path(path).resolve())
    except (KeysError, SettingsError) as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"API_KEYS_FILE cannot be written: {error.strerror}")


def _run(options: argparse.Namespace, path: Path) -> None:
    match options.command:
        case "create":
            text = create(
                path,
                options.name,
                lifetime=options.expires,
                rate=options.rate,
                concurrent=options.concurrent,
                models=options.models,
            )
            _show(text)
        case "rotate":
            _show(rotate(path, options.name))
        case "revoke":
            revoke(path, options.name)
        case "list":
            for key in read_keys(path):
                sys.stdout.write(_line(key))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m core.keys", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    new = commands.add_parser("create", help="make a key and show it, once")
    new.add_argument("--name", required=True, help="who or what will use it")
    new.add_argument("--rate", help="instead of RATE_LIMIT, such as 60/minute")
    new.add_argument("--concurrent", type=int, help="most requests that run at once")
    new.add_argument("--models", type=_models, help="such as llama3.1:8b,qwen2.5:*; else all")
    new.add_argument("--expires", type=_lifetime, help="after so many h, d or w, such as 90d")
    commands.add_parser("list", help="show what is known of the keys")
    for command, effect in {"revoke": "void a key", "rotate": "void a key for a new one"}.items():
        commands.add_parser(command, help=effect).add_argument("name")
    return parser


def _models(text: str) -> tuple[str, ...]:
    return tuple(model.strip() for model in text.split(","))


def _lifetime(text: str) -> timedelta:
    if not re.fullmatch(r"[1-9]\d{0,4}[hdw]", text):
        raise argparse.ArgumentTypeError("expected a number of h, d or w, such as 90d")
    return int(text[:-1]) * _UNITS[text[-1]]


def _show(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stderr.write("This is the only time that the key is shown\n")


def _line(key: ApiKey) -> str:
    facts = {
        "id": PREFIX + key.id,
        "created": key.created.date(),
        "expired" if key.expired() else "expires": key.expires and key.expires.date(),
        "rate": key.rate,
        "concurrent": key.concurrent,
        "models": key.models and ",".join(key.models),
    }
    return "  ".join([key.name, *(f"{name} {fact}" for name, fact in facts.items() if fact)]) + "\n"


def _new_key(lifetime: timedelta | None) -> tuple[str, dict[str, Any]]:
    """Return the text of a new key, and what to store of it."""
    key_id = secrets.token_hex(4)
    text = f"{PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
    now = datetime.now(UTC).replace(microsecond=0)
    expires = now + lifetime if lifetime else None
    return text, {"id": key_id, "sha256": digest(text), "created": now, "expires": expires}


def _find(keys: Sequence[ApiKey], name: str) -> int:
    for index, key in enumerate(keys):
        if key.name == name:
            return index
    raise KeysError(f"There is no key named {name}")


@contextmanager
def _edited(path: Path) -> Iterator[list[ApiKey]]:
    """Yield the keys in the file at `path` to be changed, and write them; other writers wait."""
    with Path(f"{path}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keys = read_keys(path)
        yield keys
        _write(path, keys)


def _write(path: Path, keys: Sequence[ApiKey]) -> None:
    """Replace the file as a whole, so that a reader or a crash never meets half of it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
        try:
            file.write(msgspec.json.format(msgspec.json.encode(keys)) + b"\n")
            file.flush()
            if path.exists():  # its owner is who serves, even if root edits
                os.fchown(file.fileno(), path.stat().st_uid, path.stat().st_gid)
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink()
            raise


if __name__ == "__main__":
    main()
