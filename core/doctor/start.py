"""Loads what a server loads at its start, to find out what would keep it from starting."""

import os
from pathlib import Path

from msgspec.structs import replace

from core.app import create_app
from core.serving import server
from core.settings.environment import SettingsError
from core.settings.schema import Settings


def check(settings: Settings) -> None:
    """Load certificates, keys and packages as a server does, but serve nothing and write no file.

    Raises:
        SettingsError: a server could not start; the text is one line and contains no secret.
    """
    server.check(settings)
    if settings.log_file and not _is_writable(Path(settings.log_file)):
        raise SettingsError("LOG_FILE cannot be opened: expected a path that this user may write")
    # Without its file, because opening that would create it; a server starts with any.
    _ = create_app([], replace(settings, usage_file=""), instrumented=True).assembled


def _is_writable(path: Path) -> bool:
    if os.access(path.parent, os.W_OK | os.X_OK) and not path.exists():
        return True
    return os.access(path, os.W_OK) and not path.is_dir()
