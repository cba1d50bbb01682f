"""`python -m handlers` serves the bundle: the door that start.sh, Procfile and services use."""

import os
import sys

from core.server import serve
from core.settings import Settings, SettingsError


def main() -> None:
    """Serve on HOST and PORT; a setting that cannot be used ends the start with one line."""
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        sys.exit(str(error))
    serve("handlers.asgi:app", settings)


if __name__ == "__main__":
    main()
