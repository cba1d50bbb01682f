"""`python -m handlers` serves the bundle: the entry point of start.sh, Procfile and services."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence

if __name__ == "__main__":  # these signals may arrive during the imports, which take a while
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if os.getpid() == 1:  # in a container: Linux drops what the first process does not handle
        signal.signal(signal.SIGINT, lambda number, _: os._exit(128 + number))
        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))

from core import __version__
from core.contract.errors import ApiError
from core.doctor.start import check
from core.ollama.client import OllamaClient
from core.ollama.upstream import Upstream
from core.serving.server import serve
from core.settings.environment import SettingsError
from core.settings.schema import Settings
from handlers.asgi import app

WARNING_TIMEOUT_S = 2
"""How long the check of Ollama's models may delay the start."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve on PORT and WEB_PORT; on an invalid setting, exit with one line."""
    parser = argparse.ArgumentParser(
        prog="python -m handlers",
        description="Serve the API on PORT (5000) and the chat page on WEB_PORT (8080).",
        epilog="Settings are environment variables: python -m core.settings prints them.",
    )
    parser.add_argument("--version", action="version", version=f"Ollama Web API {__version__}")
    parser.add_argument(
        "--check", action="store_true", help="load what a start needs, serve nothing, and exit"
    )
    options = parser.parse_args(arguments)
    try:
        settings = Settings.from_env(os.environ)
        if options.check:
            check(settings)
            return
        if not settings.built_in_model:
            asyncio.run(_warn(settings))
        serve(app, settings)
    except SettingsError as error:
        sys.exit(str(error))


async def _warn(settings: Settings) -> None:
    """Warn on stderr if Ollama does not answer, or the default model is not as expected."""
    logging.getLogger("core").addHandler(logging.NullHandler())  # no log is configured yet
    upstream = Upstream(settings)
    client = OllamaClient(settings, upstream)
    problem: object = None
    try:
        async with asyncio.timeout(WARNING_TIMEOUT_S):
            problem = await client.default.problem()
    except ApiError as error:
        problem = error
    except TimeoutError:
        problem = f"Ollama has not answered within {WARNING_TIMEOUT_S} seconds"
    if problem:
        sys.stderr.write(f"{problem}\n")
    upstream.pool.close()


if __name__ == "__main__":
    main()
