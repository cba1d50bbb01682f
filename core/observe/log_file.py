"""LOG_FILE, reopened after logrotate has moved it."""

import logging
import sys
from contextlib import suppress
from logging.handlers import WatchedFileHandler


class LogFile(WatchedFileHandler):
    """Falls back to standard error when the file cannot be written, and says why.

    `WatchedFileHandler` would raise into the code that logs.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write `record` to the file."""
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Write `record` to standard error."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError) or not sys.stderr:
            super().handleError(record)
            return
        with suppress(OSError):
            reason = f"LOG_FILE cannot be written: {error.strerror}"
            sys.stderr.write(f"{reason}\n{self.format(record)}\n")
