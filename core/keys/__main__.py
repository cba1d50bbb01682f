"""`python -m core.keys` creates, lists, revokes and rotates the API keys in API_KEYS_FILE."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import msgspec

from core.keys.editing import KeysError, create, locked, revoke, rotate
from core.keys.records import PREFIX, ApiKey, read_keys
from core.keys.shared import SharedKeys, are_shared
from core.settings.environment import SettingsError
from core.settings.schema import Settings
from core.settings.values import Rate

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a new key goes to standard output, messages to standard error."""
    options = _parser().parse_args(arguments)
    try:
        settings = Settings.from_env(os.environ)
        if not settings.api_keys_file:
            sys.exit("Set API_KEYS_FILE to the path of the key file")
        path = Path(settings.api_keys_file).resolve()
        shared = SharedKeys(settings) if are_shared(settings) else None
        _run(options, path)
    except (KeysError, SettingsError) as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"API_KEYS_FILE cannot be written: {error.strerror}")
    if options.command == "publish" and not shared:
        sys.exit("Set API_KEYS_SECRET=redis:NAME, and RATE_LIMIT_STORAGE to the shared Redis")
    if shared and options.command != "list":
        _publish(shared, path)


def _publish(shared: SharedKeys, path: Path) -> None:
    try:
        with locked(path):  # so that no command sends an older file after another has sent its own
            shared.publish(path)
    except SettingsError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(
            f"The other gateways do not have this change yet: {error}. Once that is fixed, run: "
            "python -m core.keys publish"
        )


def _run(options: argparse.Namespace, path: Path) -> None:
    match options.command:
        case "create":
            text = create(
                path,
                options.name,
                lifetime=options.expires,
                alphanumeric=options.alphanumeric,
                rate=options.rate,
                concurrent=options.concurrent,
                tokens=options.tokens,
                models=options.models,
            )
            _show(text)
        case "rotate":
            _show(rotate(path, options.name, alphanumeric=options.alphanumeric))
        case "revoke":
            revoke(path, options.name)
        case "list":
            for key in read_keys(path):
                sys.stdout.write(_line(key))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m core.keys", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    new = commands.add_parser("create", help="create a key and show it once")
    new.add_argument("--name", required=True, help="the person or program that will use it")
    new.add_argument("--rate", type=_rate, help="overrides RATE_LIMIT, such as 60/minute")
    new.add_argument("--concurrent", type=int, help="maximum number of concurrent requests")
    new.add_argument(
        "--tokens", type=_rate, help="token budget, such as 200000/day (default: none)"
    )
    new.add_argument("--models", type=_models, help="such as llama3.1:8b,qwen2.5:*; default: all")
    new.add_argument("--expires", type=_lifetime, help="lifetime in h, d or w, such as 90d")
    commands.add_parser("publish", help="copy the file's keys to API_KEYS_SECRET=redis:NAME")
    commands.add_parser("list", help="list the keys, without their secrets")
    commands.add_parser("revoke", help="revoke a key").add_argument("name")
    again = commands.add_parser("rotate", help="replace a key")
    again.add_argument("name")
    for command in (new, again):
        command.add_argument(
            "--alphanumeric",
            action="store_true",
            help="letters and digits only, as AWS' API Gateway requires",
        )
    return parser


def _models(text: str) -> tuple[str, ...]:
    return tuple(model.strip() for model in text.split(","))


def _rate(text: str) -> str:
    try:
        return msgspec.convert(text, Rate)
    except msgspec.ValidationError:
        words = "expected a rate such as 60/minute (second, minute, hour, day), or off"
        raise argparse.ArgumentTypeError(words) from None


def _lifetime(text: str) -> timedelta:
    if not re.fullmatch(r"[1-9]\d{0,4}[hdw]", text):
        raise argparse.ArgumentTypeError("expected hours, days or weeks, such as 12h, 90d or 4w")
    return int(text[:-1]) * _UNITS[text[-1]]


def _show(text: str) -> None:
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError as error:
        raise KeysError(
            f"The new key cannot be shown, so it is lost: {error.strerror}. Rotate it"
        ) from None
    sys.stderr.write("Save this key now: it will not be shown again\n")


def _line(key: ApiKey) -> str:
    facts = {
        "id": PREFIX + key.id,
        "created": key.created.date(),
        "expired" if key.expired() else "expires": key.expires and key.expires.date(),
        "rate": key.rate,
        "concurrent": key.concurrent,
        "tokens": key.tokens,
        "models": key.models and ",".join(key.models),
    }
    return "  ".join([key.name, *(f"{name} {fact}" for name, fact in facts.items() if fact)]) + "\n"


if __name__ == "__main__":
    main()
