"""The log: one JSON object, or one line of plain text, per request and event."""

import logging
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import cast

import msgspec
from msgspec import UNSET, Struct, UnsetType

from core.context import Record, encodable
from core.settings.environment import SettingsError
from core.settings.schema import Settings

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_UNESCAPED = re.compile(r"[\x7f-\x9f\u2028\u2029]")
"""The controls that JSON does not escape."""
_MAX_PATH = 200
_FIXED = 3  # fields of a `_Line` that the console shows otherwise

_encode = msgspec.json.Encoder(enc_hook=str).encode_lines


def configure(settings: Settings) -> None:
    """Send all logs to LOG_FILE, or else to standard output, as LOG_FORMAT says.

    Raises:
        SettingsError: the file cannot be opened.
    """
    handler = _handler(settings)
    handler.setFormatter(JSONFormatter() if settings.log_format == "json" else ConsoleFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.getLogger("mangum").setLevel(logging.WARNING)  # it logs each request too


def flush() -> None:
    """Wait until the lines so far are written; not for long if nobody reads the log."""
    for handler in logging.root.handlers:
        handler.flush()


def dropped_lines() -> int:
    """Return how many lines could not be written since the start."""
    return sum(getattr(handler, "dropped", 0) for handler in logging.root.handlers)


def _handler(settings: Settings) -> logging.Handler:
    if settings.is_function:  # frozen between requests, and its threads with it
        return logging.StreamHandler(sys.stdout)
    from core.observe.writer import LogFile, LogWriter, StandardOutput  # noqa: PLC0415

    try:
        return LogWriter(
            LogFile(Path(settings.log_file)) if settings.log_file else StandardOutput()
        )
    except OSError as error:
        raise SettingsError(f"LOG_FILE cannot be opened: {error.strerror}") from None


def log_requests(*records: Record) -> None:
    """Log finished requests, to the handlers that `configure` has set up.

    Handlers and formatters get all of them in place of a `LogRecord`: building one took a fifth of
    a plain chat's time, and handling one record at a time takes twice as long.
    """
    for handler in logging.root.handlers:
        if isinstance(handler.formatter, JSONFormatter | ConsoleFormatter):
            handler.handle(cast("logging.LogRecord", records))


class _Line(Struct, kw_only=True):
    """What the log says about a request, in order; it leaves out what is unset."""

    time: str
    level: str = "info"
    logger: str = "request"
    id: str
    client: str
    address: str
    method: str
    path: str
    status: int
    refused_key: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    queue_ms: int | UnsetType = UNSET
    tokens: int | UnsetType = UNSET
    first_token_ms: int | UnsetType = UNSET
    error: str | UnsetType = UNSET
    total_ms: int

    @classmethod
    def of(cls, record: Record) -> "_Line":
        first_token_s = record.first_token_s
        return cls(
            time=_utc(record.ended_at),
            id=record.request_id,
            client=record.caller.id if record.caller else "",
            address=record.address,
            method=record.method,
            path=record.path[:_MAX_PATH],
            status=record.status,
            refused_key=record.refused_key or UNSET,
            model=encodable(record.model) or UNSET,
            queue_ms=round(record.queued_s * 1000) if record.model else UNSET,
            tokens=record.tokens if record.model else UNSET,
            first_token_ms=UNSET if first_token_s is None else round(first_token_s * 1000),
            error=record.error.__name__ if record.error else UNSET,
            total_ms=round(record.duration_s * 1000),
        )


class JSONFormatter(logging.Formatter):
    """Formats each record as one line of JSON; no content can start a new line."""

    def format(self, record: logging.LogRecord | Sequence[Record]) -> str:
        """Return the line for `record`, or those of several requests; the last has no break."""
        if isinstance(record, logging.LogRecord):
            entry = {
                "time": _utc(record.created),
                "level": record.levelname.lower(),
                "logger": record.name,
                "message": record.getMessage(),
            }
            if record.exc_info:
                entry["exception"] = self.formatException(record.exc_info)
            data = _encode([entry])
        else:
            data = _encode([_Line.of(request) for request in record])
        text = data[:-1].decode("utf-8")
        if data.isascii() and b"\x7f" not in data:
            return text
        return _UNESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class ConsoleFormatter(logging.Formatter):
    """Formats each record as a line of plain text."""

    def format(self, record: logging.LogRecord | Sequence[Record]) -> str:
        """Return the line for `record`, with any traceback, or the lines of several requests."""
        if isinstance(record, logging.LogRecord):
            trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
            return _shown(record.created, record.levelname, record.getMessage()) + trace
        return "\n".join(map(self._format_request, record))

    def _format_request(self, record: Record) -> str:
        line = msgspec.to_builtins(_Line.of(record))
        message = " ".join(f"{name}={value}" for name, value in [*line.items()][_FIXED:])
        return _shown(record.ended_at, "INFO", message)


def _shown(seconds: float, level: str, message: str) -> str:
    safe = _CONTROLS.sub(lambda match: f"\\x{ord(match[0]):02x}", message)
    return f"{datetime.fromtimestamp(seconds).astimezone():%H:%M:%S} {level:7} {safe}"


def _utc(seconds: float) -> str:
    return f"{_second(int(seconds))}.{int(seconds * 1000) % 1000:03}+00:00"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()
