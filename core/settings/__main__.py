"""`python -m core.settings` prints the settings in force, with secrets masked."""

import os
import sys

import msgspec

from core.settings.environment import SettingsError, schema_of
from core.settings.schema import Settings


def main() -> None:
    """Print `NAME=value` lines; exit with one line on stderr if a value is invalid."""
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        sys.exit(str(error))
    for field in msgspec.structs.fields(Settings):
        value = getattr(settings, field.name)
        if value and "writeOnly" in schema_of(field) and value != field.default:
            value = "********"
        elif isinstance(value, tuple):
            value = ",".join(value)
        sys.stdout.write(f"{field.name.upper()}={value}\n")


if __name__ == "__main__":
    main()
