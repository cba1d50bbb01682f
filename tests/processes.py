"""Runs this project's programs as processes of their own, and ends them by their ids."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO


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
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=20)


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
