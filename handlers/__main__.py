"""`python -m handlers` serves the bundle: the entry point of start.sh, Procfile and services."""

import argparse
import os
import sys
from collections.abc import Sequence

from core import __version__
from core.serving.server import serve
from core.settings.environment import SettingsError
from core.settings.schema import Settings
from handlers.asgi import app


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve on PORT and WEB_PORT; on an invalid setting, exit with one line."""
    parser = argparse.ArgumentParser(
        prog="python -m handlers",
        description="Serve the API on PORT (5000) and the chat page on WEB_PORT (8080).",
        epilog="Settings are environment variables: python -m core.settings prints them.",
    )
    parser.add_argument("--version", action="version", version=f"Ollama Web API {__version__}")
    parser.parse_args(arguments)
    try:
        serve(app, Settings.from_env(os.environ))
    except SettingsError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
