"""Runs this project's programs as processes of their own, and ends them by their ids."""

import io
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO


class Output(io.TextIOBase):
    """What a process writes, read by a thread: a process must not wait for its reader."""

    def __init__(self, pipe: IO[str]) -> None:
        self._lines = queue.SimpleQueue[str]()
        self._pipe = pipe
        self._thread = threading.Thread(target=self._pump)
        self._thread.start()

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]
        """Return the next line, with its end; empty at the end of all."""
        line = self._lines.get(timeout=60)
        if not line:
            self._lines.put(line)
        return line

    def read(self, size: int | None = -1, /) -> str:
        """Return all lines that are left, once the process has ended."""
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
        process.wait(timeout=20)
        for output in outputs:
            output.close()


def wait_for(stream: IO[str] | None, text: str) -> str:
    """Read lines until one holds `text`, and return what is behind it."""
    assert stream
    seen = []
    for line in stream:
        if text in line:
            return line.partition(text)[2].strip()
        seen.append(line)
    raise AssertionError(f"{text!r} was never printed, but: {''.join(seen)}")


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
