"""`python -m core.settings` prints the settings in force, with secrets masked.

With `--markdown` it prints the reference, `deploy/SETTINGS.md`.
"""

import argparse
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec.structs import FieldInfo, fields

from core.settings.environment import SettingsError, schema_of
from core.settings.functions import FunctionSettings
from core.settings.schema import Settings

_MASK = "********"
_QUERY = re.compile(r"(?<=\S)\?.*")
"""A URL's query, which may contain a signature or a key."""
_HEAD = """# Settings

All settings are environment variables, and all are optional. Startup fails on an invalid value,
with one line that says what the setting accepts. `python -m handlers --check` finds that out
without a start. `python -m core.settings` prints the values in force, with secrets masked;
`python -m core.settings --markdown` prints this page.

| name | meaning and unit | default |
|---|---|---|
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print `NAME=value` lines, or the reference; exit with one line if a value is invalid."""
    parser = argparse.ArgumentParser(prog="python -m core.settings", description=__doc__)
    parser.add_argument("--markdown", action="store_true", help="print the reference instead")
    if parser.parse_args(arguments).markdown:
        sys.stdout.write(_HEAD + "".join(f"{row}\n" for row in _rows()))
        return
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        sys.exit(str(error))
    for field in _fields():
        value = getattr(settings, field.name)
        is_secret = value and "writeOnly" in schema_of(field) and value != field.default
        text = _MASK if is_secret else _QUERY.sub(f"?{_MASK}", _text(value))
        sys.stdout.write(f"{field.name.upper()}={text}\n")


def _fields() -> list[FieldInfo]:
    """Return the settings, with those of functions last."""
    functions = {field.name for field in fields(FunctionSettings)}
    return sorted(fields(Settings), key=lambda field: field.name in functions)


def _rows() -> Iterator[str]:
    defaults = Settings()
    for field in _fields():
        default = _text(getattr(defaults, field.name))
        shown = f"`{default}`" if default else ""
        yield f"| `{field.name.upper()}` | {schema_of(field)['description']} | {shown} |"


def _text(value: Any) -> str:
    """Return `value` as text for its variable; empty means unset."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value) if value or value == 0 else ""


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # "| head" ends it without a traceback
    main()
