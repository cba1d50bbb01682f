"""Counts answered requests, tokens and seconds by caller, model and day, and keeps them in a file.

It stores nothing of the conversations.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from core.context import Caller, Record
from core.contract.retryable import UsageUnavailable

FLUSH_S = 4
"""Seconds between two writes to the file. With the write, a killed process loses at most 5."""
BUSY_S = 2
"""Seconds to wait for another process that writes to the file."""
ANONYMOUS = "anonymous"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS usage (
    day TEXT, caller TEXT, model TEXT,
    requests INTEGER, prompt_tokens INTEGER, tokens INTEGER, seconds REAL,
    PRIMARY KEY (day, caller, model)
) WITHOUT ROWID
"""
_BUDGETS = """
CREATE TABLE IF NOT EXISTS budgets (key TEXT PRIMARY KEY, ends INTEGER, spent INTEGER)
"""
_SPENT = """
INSERT INTO budgets VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET spent = MAX(spent, excluded.spent)
"""
_ADD = """
INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (day, caller, model) DO UPDATE SET
    requests = requests + excluded.requests,
    prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    tokens = tokens + excluded.tokens,
    seconds = seconds + excluded.seconds
"""
_READ = """
SELECT * FROM usage WHERE day >= ? AND (? IS NULL OR caller = ?) ORDER BY day, caller, model
"""
_logger = logging.getLogger(__name__)


class Usage(NamedTuple):
    """What one caller asked of one model on one day, in UTC."""

    day: str
    caller: str
    """`key:NAME`, `jwt:SUBJECT` or `anonymous`."""
    model: str
    requests: int
    prompt_tokens: int
    tokens: int
    seconds: float
    """Seconds that the model took, without the wait for a slot."""


class Ledger:
    """Counts in memory, and adds the counts to a file every few seconds, from a thread.

    A full disk or a locked file delays no answer: the counts stay in memory, and are added later.
    """

    def __init__(self, path: str) -> None:
        """Keep the counts in the SQLite file at `path`; in memory alone if it is empty."""
        self._path = path or ":memory:"
        self.failures = 0
        """Failed writes to the file."""
        self._pending: dict[tuple[str, str, str], list[float]] = {}
        self._spent: dict[str, tuple[str, int, int]] = {}
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._closing = threading.Event()
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        self._thread: threading.Thread | None = None
        self._failing = False

    def observe(self, *records: Record) -> None:
        """Count the finished requests that a model answered."""
        with self._lock:
            for record in records:
                if record.model and record.caller and record.answered:
                    self._count(record, record.caller)
        if self._pending:
            self._start()

    def _count(self, record: Record, caller: Caller) -> None:
        day = _day(int(record.ended_at) // 86_400)
        counts = self._pending.setdefault((day, caller_of(caller.id), record.model), [0, 0, 0, 0.0])
        counts[0] += 1
        counts[1] += record.prompt_tokens
        counts[2] += record.tokens
        counts[3] += max(0.0, record.duration_s - record.queued_s)

    def keep_spent(self, key: str, end: int, spent: int) -> None:
        """Record that `spent` tokens of a budget's window are used, until its `end`."""
        with self._lock:
            self._spent[key] = key, end, spent
        self._start()

    def spent(self) -> dict[str, tuple[int, int]]:
        """Return the windows that are still open: the tokens used, and the seconds left."""
        now = int(time.time())
        try:
            with self._writing:
                rows = self._open().execute("SELECT * FROM budgets WHERE ends > ?", (now,))
                return {key: (spent, ends - now) for key, ends, spent in rows}
        except sqlite3.Error as error:
            self._report(error)
            return {}

    def read(self, caller: str | None = None, since: date = date.min) -> list[Usage]:
        """Return the counts of one caller, or of all; blocks while the file is read.

        Raises:
            UsageUnavailable: it cannot be read now.
        """
        self.flush()
        try:
            with self._writing:
                rows = self._open().execute(_READ, (since.isoformat(), caller, caller))
                return [Usage(*row) for row in rows]
        except sqlite3.Error as error:
            _logger.warning("USAGE_FILE cannot be read: %s", error)
            raise UsageUnavailable from None

    def flush(self) -> None:
        """Add what was counted to the file."""
        with self._writing:
            with self._lock:
                pending, self._pending = self._pending, {}
                spent, self._spent = self._spent, {}
            if not pending and not spent:
                return
            try:
                rows = [(*key, *counts) for key, counts in pending.items()]
                with self._open() as connection:
                    connection.executemany(_ADD, rows)
                    connection.executemany(_SPENT, spent.values())
                    connection.execute("DELETE FROM budgets WHERE ends <= ?", (int(time.time()),))
            except sqlite3.Error as error:
                with self._lock:
                    self._keep(pending)
                    self._spent = spent | self._spent
                self._report(error)
            else:
                if self._failing:
                    _logger.warning("USAGE_FILE can be written again")
                self._failing = False

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._closing.set()
        if self._thread:
            self._thread.join(FLUSH_S)
        self.flush()
        with self._writing:
            self._disconnect()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="usage", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._closing.wait(FLUSH_S):
            self.flush()

    def _open(self) -> sqlite3.Connection:
        if self._connection and self._identity() != self._opened:  # it was moved or deleted
            self._disconnect()
        if self._connection is None:
            connection = sqlite3.connect(
                self._path,
                timeout=BUSY_S,
                check_same_thread=False,  # `_writing` lets one thread at a time use it
            )
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                # So that the file can be moved or copied alone; writes are rare enough.
                connection.execute("PRAGMA wal_autocheckpoint = 1")
                connection.execute(_SCHEMA)
                connection.execute(_BUDGETS)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection, self._opened = connection, self._identity()
        return self._connection

    def _identity(self) -> tuple[int, int] | None:
        """Return what tells the file from another under its name; None if there is none."""
        try:
            stat = Path(self._path).stat()
        except OSError:
            return None
        return stat.st_dev, stat.st_ino

    def _disconnect(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def _keep(self, pending: dict[tuple[str, str, str], list[float]]) -> None:
        for key, counts in pending.items():
            kept = self._pending.setdefault(key, [0, 0, 0, 0.0])
            for index, count in enumerate(counts):
                kept[index] += count

    def _report(self, error: sqlite3.Error) -> None:
        self.failures += 1
        if not self._failing:
            _logger.error("USAGE_FILE cannot be written, the counts are kept in memory: %s", error)
        self._failing = True


@lru_cache(maxsize=2)
def _day(number: int) -> str:
    """Return the date that is `number` days after 1970-01-01."""
    return (date(1970, 1, 1) + timedelta(days=number)).isoformat()


def caller_of(caller_id: str) -> str:
    """Return the name that a caller is counted under; all addresses count as `anonymous`."""
    return ANONYMOUS if caller_id.startswith("address:") else caller_id


def read_file(path: str, since: date = date.min) -> Sequence[Usage]:
    """Return the counts in the file at `path`, which another process may be writing.

    Raises:
        sqlite3.Error: there is no such file, or it has no such counts.
    """
    uri = f"file:{quote(path)}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_S)) as connection:
        rows = connection.execute(_READ, (since.isoformat(), None, None))
        return [Usage(*row) for row in rows]
