"""`python -m handlers` serves the bundle: the door that start.sh, Procfile and services use."""

import os
import sys

from core.serving.server import serve
from core.settings.environment import SettingsError
from core.settings.schema import Settings
from handlers.asgi import app


def main() -> None:
    """Serve on PORT and WEB_PORT; a setting that cannot be used ends the start with one line."""
    try:
        serve(app, Settings.from_env(os.environ))
    except SettingsError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
