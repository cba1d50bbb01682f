"""Runs this project's programs as separate processes, and stops them by process id."""

import io
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO


class Output(io.TextIOBase):
    """A process's output, read by a thread so that the process never blocks on its reader."""

    def __init__(self, pipe: IO[str]) -> None:
        self._lines = queue.SimpleQueue[str]()
        self._pipe = pipe
        self._thread = threading.Thread(target=self._pump)
        self._thread.start()

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]
        """Return the next line with its line ending; empty at end of output."""
        line = self._lines.get(timeout=60)
        if not line:
            self._lines.put(line)
        return line

    def read(self, size: int | None = -1, /) -> str:
        """Return all remaining lines, once the process has ended."""
        return "".join(self)

    def close(self) -> None:
        self._thread.join()
        self._pipe.close()
        super().close()

    def _pump(self) -> None:
        for line in self._pipe:
            self._lines.put(line)
        self._lines.put("")


@contextmanager
def running(*arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Run `python ARGUMENTS` with `environ` added to the environment."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stderr
    outputs = [Output(process.stdout), Output(process.stderr)]
    process.stdout, process.stderr = outputs  # type: ignore[assignment]
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        for output in outputs:
            output.close()


def wait_for(stream: IO[str] | None, text: str) -> str:
    """Read lines until one contains `text`, and return what follows it."""
    assert stream
    seen = []
    for line in stream:
        if text in line:
            return line.partition(text)[2].strip()
        seen.append(line)
    raise AssertionError(f"{text!r} was never printed; the output was: {''.join(seen)}")


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Wait for `condition`; return whether it came true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@contextmanager
def bundle(ollama_url: str, **environ: str) -> Iterator[str]:
    """Run the bundle in front of `ollama_url`; yield its URL."""
    own = {"OLLAMA_BASE_URL": ollama_url, "PORT": "0", "WEB_PORT": "0", "LOG_FORMAT": "console"}
    with running("-m", "handlers", **own, **environ) as process:
        yield wait_for(process.stdout, "Listening for the API on ")


@contextmanager
def fake_ollama(*arguments: str) -> Iterator[str]:
    """Run the fake Ollama; yield its URL."""
    with running("-m", "tests.fake_ollama", *arguments) as process:
        assert process.stdout
        yield process.stdout.readline().strip()
