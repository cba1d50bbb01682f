"""A log that is unread, not writable or closed blocks no request, and is reported."""

import errno
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import httpx
import pytest

from core.context import Record
from core.observe import writer
from core.observe.logs import ConsoleFormatter
from tests.processes import fake_ollama
from tests.programs import free_ports

CHAT = {"message": "hi", "model": "smollm2:135m"}
LONG = "/" + "x" * 190


@pytest.fixture(scope="module")
def ollama() -> Iterator[str]:
    with fake_ollama("--pace", "0") as url:
        yield url


@contextmanager
def serving(
    ollama: str, stdout: int | None, *redirect: str, **environ: str
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run the server with `stdout`, a descriptor that this process reads or does not read."""
    (port,) = free_ports(1)
    own = {"OLLAMA_BASE_URL": ollama, "PORT": str(port), "WEB_PORT": "0", "RATE_LIMIT": "off"}
    shell = f'exec "$0" -m handlers {" ".join(redirect)}'
    process = subprocess.Popen(
        ["bash", "-c", shell, sys.executable],
        env={**os.environ, **own, **environ},
        stdout=stdout,
        stderr=subprocess.PIPE,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_up(url)
        yield process, url
    finally:
        process.kill()
        process.wait()
        assert process.stderr
        process.stderr.close()


def stopped(process: subprocess.Popen[bytes]) -> str:
    """Stop the server; return what it wrote to standard error."""
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=20)
    assert process.stderr
    return process.stderr.read().decode()


def wait_until_up(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            httpx.get(f"{url}/api/health", trust_env=False)
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def read_all(descriptor: int) -> list[bytes]:
    with os.fdopen(descriptor, "rb") as pipe:
        return pipe.read().splitlines()


def dropped(client: httpx.Client, url: str) -> float:
    name = "ollama_web_api_dropped_log_lines "
    text = client.get(f"{url}/metrics").text
    return float(next(line for line in text.splitlines() if line.startswith(name)).split()[1])


def test_a_log_that_nobody_reads_stops_neither_requests_nor_the_end(ollama: str) -> None:
    reader, stdout = os.pipe()
    with serving(ollama, stdout) as (process, url), httpx.Client(trust_env=False) as client:
        os.close(stdout)
        for _ in range(500):  # 150 KB, over twice what the pipe holds
            assert client.get(url + LONG).status_code == 404
        assert client.post(f"{url}/api/chat", json=CHAT).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == -signal.SIGTERM
    os.close(reader)


def test_every_line_before_the_end_is_written(ollama: str) -> None:
    reader, stdout = os.pipe()
    with serving(ollama, stdout) as (process, url), httpx.Client(trust_env=False) as client:
        os.close(stdout)
        for number in range(50):
            client.get(f"{url}/{number}")
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)
    lines = [json.loads(line) for line in read_all(reader)]
    paths = [line["path"] for line in lines if line["logger"] == "request"]
    assert paths[-50:] == [f"/{number}" for number in range(50)]
    assert lines[-1]["message"].startswith("Finished server process")


def test_what_does_not_fit_is_counted_and_reported(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(writer, "MAX_PENDING_BYTES", 100_000)
    reader, descriptor = os.pipe()

    class Target(writer.StandardOutput):
        def descriptor(self) -> int:
            return descriptor

    handler = writer.LogWriter(Target())
    record = logging.makeLogRecord({"msg": "x" * 99})
    for _ in range(2000):
        handler.handle(record)
    # 1000 may wait, besides the 64 KiB that the pipe takes if the thread is quick.
    assert 300 < handler.dropped < 2000
    with os.fdopen(reader, "rb") as pipe:
        seen, told = [], 0
        while told < handler.dropped:  # in several lines, if the thread writes between two drops
            line = pipe.readline().decode()
            if found := re.search(r"(\d+) log lines were dropped", line):
                told += int(found[1])
            else:
                seen.append(line)
        assert len(seen) == 2000 - handler.dropped
        handler.handle(record)
        assert pipe.readline().decode() == "x" * 99 + "\n"
    os.close(descriptor)
    handler.flush()
    assert capfd.readouterr().err == ""


def test_dropped_lines_are_a_metric(ollama: str) -> None:
    with serving(ollama, None, ">&-", "2>&-") as (_, url), httpx.Client(trust_env=False) as client:
        before = dropped(client, url)
        client.get(url + LONG)
        deadline = time.monotonic() + 20
        while dropped(client, url) <= before:
            assert time.monotonic() < deadline


def test_a_closed_output_is_one_line_on_standard_error_and_no_traceback(ollama: str) -> None:
    reader, stdout = os.pipe()
    with serving(ollama, stdout) as (process, url), httpx.Client(trust_env=False) as client:
        os.close(stdout)
        os.close(reader)
        for _ in range(3):
            assert client.get(url + LONG).status_code == 404
        errors = stopped(process)
    assert errors.count("Standard output cannot be written: Broken pipe") == 1
    assert errors.count(LONG) == 3
    assert "Traceback" not in errors


def test_a_descriptor_that_became_a_clients_gets_no_log(ollama: str) -> None:
    with serving(ollama, None, ">&-") as (process, url), httpx.Client(trust_env=False) as client:
        for _ in range(3):
            answer = client.post(f"{url}/api/chat", json=CHAT)
            assert answer.json()["success"] is True
        assert stopped(process).count("it is closed") == 1


def test_a_full_disk_loses_no_line(ollama: str) -> None:
    with (
        serving(ollama, None, LOG_FILE="/dev/full") as (process, url),
        httpx.Client(trust_env=False) as client,
    ):
        for _ in range(3):
            assert client.get(url + LONG).status_code == 404
        errors = stopped(process)
    assert errors.count("LOG_FILE cannot be written: No space left on device") == 1
    assert errors.count(LONG) == 3


def test_a_moved_file_is_reopened(tmp_path: Path) -> None:
    path = tmp_path / "log"
    handler = writer.LogWriter(writer.LogFile(path))
    for number in range(3):
        handler.handle(logging.makeLogRecord({"msg": f"{number}"}))
        handler.flush()
        path.rename(tmp_path / f"log.{number}")
    assert [(tmp_path / f"log.{number}").read_text() for number in range(3)] == [
        "0\n",
        "1\n",
        "2\n",
    ]


@pytest.mark.parametrize("make_space", ["elsewhere", "move", "empty"])
def test_a_line_that_a_full_disk_cuts_short_spoils_no_other(
    make_space: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"
    handler = writer.LogWriter(writer.LogFile(path))
    write, space = os.write, [10]

    def write_if_there_is_space(descriptor: int, data: bytes) -> int:
        if descriptor == sys.stderr.fileno():
            return write(descriptor, data)
        if not (size := min(len(data), space[0])):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        space[0] -= size
        return write(descriptor, data[:size])

    monkeypatch.setattr(os, "write", write_if_there_is_space)
    for text in ("first", "second", "third"):
        handler.handle(logging.makeLogRecord({"msg": text}))
        handler.flush()
    before = path.read_text()
    if make_space == "move":
        path.rename(moved)
    elif make_space == "empty":
        os.truncate(path, 0)
    space[0] = 1000
    for text in ("fourth", "fifth"):
        handler.handle(logging.makeLogRecord({"msg": text}))
        handler.flush()
    assert before == "first\nseco"
    in_same_file = "first\nseco\n" if make_space == "elsewhere" else ""
    assert path.read_text() == f"{in_same_file}fourth\nfifth\n"
    assert capfd.readouterr().err.endswith("No space left on device\nsecond\nthird\n")


def test_no_write_ends_within_a_traceback_or_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks: list[bytes] = []
    monkeypatch.setattr(writer, "_write", lambda _, data: blocks.append(data))
    handler = writer.LogWriter(writer.LogFile(tmp_path / "log"))
    handler.setFormatter(ConsoleFormatter())
    traceback = "a\n" * 3000
    requests = [
        Record(request_id=f"r{n}", method="GET", path=LONG, started_at=0) for n in range(64)
    ]
    handler.handle(logging.makeLogRecord({"msg": "x", "exc_info": (None, None, None)}))
    handler.handle(cast("logging.LogRecord", requests))
    monkeypatch.setattr(ConsoleFormatter, "formatException", lambda *_: traceback)
    handler.handle(logging.makeLogRecord({"msg": "y", "exc_info": (None, None, None)}))
    handler.flush()
    text = b"".join(blocks)
    assert [text.count(b"id=r%d " % number) for number in range(64)] == [1] * 64
    assert all(block.endswith(b"\n") for block in blocks)
    (whole,) = [block for block in blocks if traceback.encode() in block]
    others = [block for block in blocks if block is not whole]
    assert len(others) > 1
    assert all(len(block) <= writer.BLOCK_BYTES for block in others)
