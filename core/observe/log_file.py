"""LOG_FILE, opened again when logrotate has moved it away."""

import logging
import sys
from contextlib import suppress
from logging.handlers import WatchedFileHandler


class LogFile(WatchedFileHandler):
    """Writes to the standard error what it cannot write to its file, and tells why.

    `WatchedFileHandler` raises then, into whatever has something to tell.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line of `record`."""
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Write the line of `record` to where it can be."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError) or not sys.stderr:
            super().handleError(record)
            return
        with suppress(OSError):
            reason = f"LOG_FILE cannot be written: {error.strerror}"
            sys.stderr.write(f"{reason}\n{self.format(record)}\n")
