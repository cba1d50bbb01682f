"""Writes the log in a separate thread, so that an unread log blocks no request."""

import logging
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

MAX_PENDING_BYTES = 8 * 2**20
"""How much may wait to be written; lines beyond that are counted and dropped."""
FLUSH_S = 0.5
"""How long the end of the process waits for an unread log."""
GATHER_S = 0.01
"""How long a line waits for others: waking the thread costs more than formatting a line."""
BLOCK_BYTES = 4096
"""At most this much is written at once: Linux keeps such a write to a pipe in one piece."""


class StandardOutput:
    """Where the log goes without LOG_FILE."""

    name = "Standard output"

    def descriptor(self) -> int:
        """Return the descriptor to write to.

        Raises:
            OSError: it was closed when the process started.
        """
        if sys.stdout is None:  # descriptor 1 may be a client's socket by now
            raise OSError(0, "it is closed")
        return sys.stdout.fileno()


class LogFile:
    """LOG_FILE, reopened after logrotate has moved it."""

    name = "LOG_FILE"

    def __init__(self, path: Path) -> None:
        """Open the file; raises OSError if that fails."""
        self._path = path
        self._open()

    def descriptor(self) -> int:
        """Return the descriptor to write to; raises OSError if there is none."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            found = None
        if not found or (found.st_dev, found.st_ino) != self._identity:
            old = self._descriptor
            self._open()
            os.close(old)
        return self._descriptor

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._descriptor = os.open(self._path, flags, 0o666)
        opened = os.fstat(self._descriptor)
        self._identity = opened.st_dev, opened.st_ino


class _CutShort(OSError):
    """Only the beginning has been written, as when a disk becomes full."""


class LogWriter(logging.Handler):
    """Formats records immediately, and leaves the writing to a thread.

    What cannot be written goes to standard error, after one line that says why.
    """

    def __init__(self, target: StandardOutput | LogFile) -> None:
        """Write to `target`."""
        super().__init__()
        self._target = target
        self._pending = deque[bytes | threading.Event]()
        self._awake = threading.Event()
        self._accepted = self._written = 0  # bytes, each changed by one thread only
        self._overflowed = self._reported = 0  # lines
        self._lost = 0
        self._failing = False
        self._cut_short = False  # whether the file that was written last ends within a line
        threading.Thread(target=self._run, name="log", daemon=True).start()

    @property
    def dropped(self) -> int:
        """How many lines were dropped so far."""
        return self._overflowed + self._lost

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the lines for `record`, or for several requests, unless too much is waiting."""
        try:
            lines = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
        except Exception:  # a mistake in a log call must not fail the request
            self.handleError(record)
        else:
            is_one = isinstance(record, logging.LogRecord)  # with any traceback
            for text in [lines] if is_one else _cut(lines):
                self.add(text)

    def add(self, lines: bytes) -> None:
        """Queue whole lines, to be written in one piece, unless too much is waiting."""
        if self._accepted + len(lines) - self._written > MAX_PENDING_BYTES:
            self._overflowed += lines.count(b"\n")
            return
        self._accepted += len(lines)
        self._add(lines)

    def flush(self) -> None:
        """Wait until everything queued so far is written, for at most FLUSH_S."""
        written = threading.Event()
        self._add(written)
        written.wait(FLUSH_S)

    def _add(self, item: bytes | threading.Event) -> None:
        self._pending.append(item)
        if not self._awake.is_set():  # the first of a batch
            self._awake.set()

    def _run(self) -> None:
        while True:
            self._awake.wait()
            time.sleep(GATHER_S)
            self._awake.clear()  # before looking: what comes later starts a batch of its own
            batch = [self._pending.popleft() for _ in range(len(self._pending))]
            texts = [item for item in batch if isinstance(item, bytes)]
            for block in _blocks(texts):
                self._write(block)
            self._written += sum(map(len, texts))
            if self._overflowed > self._reported and not self._failing:
                self._report()
            for item in batch:
                if isinstance(item, threading.Event):
                    item.set()

    def _report(self) -> None:
        dropped, self._reported = self._overflowed - self._reported, self._overflowed
        text = f"{dropped} log lines were dropped: nobody had read the log for too long"
        record = logging.makeLogRecord(
            {"name": __name__, "levelname": "WARNING", "levelno": logging.WARNING, "msg": text}
        )
        self._write(self.format(record).encode() + b"\n")

    def _write(self, block: bytes) -> None:
        try:
            descriptor = self._target.descriptor()
            # The file may have been replaced or emptied meanwhile, to make space.
            within_line = self._cut_short and os.fstat(descriptor).st_size
            _write(descriptor, b"\n" + block if within_line else block)
            self._failing = self._cut_short = False
        except OSError as error:
            self._cut_short |= isinstance(error, _CutShort)
            reason = f"{self._target.name} cannot be written: {error.strerror}\n".encode()
            self._fall_back(block if self._failing else reason + block, block.count(b"\n"))
            self._failing = True

    def _fall_back(self, text: bytes, lines: int) -> None:
        try:
            _write(sys.stderr.fileno(), text)
        except (AttributeError, OSError, ValueError):  # it is closed too, or was never open
            self._lost += lines


def _write(descriptor: int, data: bytes) -> None:
    left = data
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:  # another process has made it non-blocking
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()
        except OSError as error:
            if left != data:
                raise _CutShort(error.errno, error.strerror) from None
            raise


def _cut(lines: bytes) -> Iterator[bytes]:
    """Yield `lines` in pieces of BLOCK_BYTES at most, unless one line is longer."""
    while len(lines) > BLOCK_BYTES:
        end = lines.rfind(b"\n", 0, BLOCK_BYTES) + 1 or lines.index(b"\n") + 1
        yield lines[:end]
        lines = lines[end:]
    if lines:
        yield lines


def _blocks(texts: Sequence[bytes]) -> Iterator[bytes]:
    """Yield whole `texts` in blocks of BLOCK_BYTES at most, unless one text is longer."""
    block: list[bytes] = []
    size = 0
    for text in texts:
        if block and size + len(text) > BLOCK_BYTES:
            yield b"".join(block)
            block, size = [], 0
        block.append(text)
        size += len(text)
    if block:
        yield b"".join(block)
