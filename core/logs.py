"""The log: one JSON object, or one line for people, for each request and each event."""

import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec

from core.record import Record
from core.settings import Settings

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_MAX_PATH = 200
_requests = logging.getLogger("request")


def configure(settings: Settings) -> None:
    """Log all there is to LOG_FILE, or else to the standard output, as LOG_FORMAT says."""
    handler: logging.Handler = logging.StreamHandler(sys.stdout)
    if settings.log_file:
        # Opened again when logrotate has moved it away.
        from logging.handlers import WatchedFileHandler  # noqa: PLC0415

        handler = WatchedFileHandler(settings.log_file, encoding="utf-8")
    handler.setFormatter(JSONFormatter() if settings.log_format == "json" else ConsoleFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)


def log_request(record: Record) -> None:
    """Write the line of a request that is over."""
    fields = {
        "id": record.request_id,
        "client": record.client,
        "method": record.method,
        "path": record.path[:_MAX_PATH],
        "status": record.status,
        "model": record.model,
        "error": record.error,
        "queue_ms": round(record.queued_s * 1000),
        "first_token_ms": record.first_token_s and round(record.first_token_s * 1000),
        "tokens": record.tokens,
        "total_ms": round(record.duration_s * 1000),
    }
    shown = {name: value for name, value in fields.items() if value not in ("", None)}
    _requests.info(
        "%s %s %s", record.method, fields["path"], record.status, extra={"fields": shown}
    )


class JSONFormatter(logging.Formatter):
    """Each record as one line of JSON; whatever is in it cannot begin another line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for `record`, without its end."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        text = msgspec.json.encode(entry, enc_hook=str).decode("utf-8", "replace")
        return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class ConsoleFormatter(logging.Formatter):
    """Each record as a line for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for `record`, and its traceback."""
        fields = getattr(record, "fields", {})
        message = " ".join(
            [record.getMessage(), *(f"{n}={v}" for n, v in fields.items() if n not in _IN_MESSAGE)]
        )
        safe = _CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", message)
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        line = f"{time} {record.levelname:7} {safe}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


_IN_MESSAGE = {"method", "path", "status"}
