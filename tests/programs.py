"""Runs programs other than this project's, and stops them by process id."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.processes import Output

ROOT = Path(__file__).resolve().parents[1]
SEARCH_PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])


def program(name: str, source: str) -> str:
    """Return the path of a program, or skip the test and say how to install it."""
    path = shutil.which(name, path=SEARCH_PATH)
    if path is None:
        pytest.skip(f"{name} is not installed: {source}")
    return path


def free_ports(count: int) -> list[int]:
    """Return ports that are free right now, and that the system gives to nobody who asks for any.

    Linux takes the ports of clients, and of servers at port 0, from 32768 on.
    """
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            port = random.randrange(20_000, 32_000)  # noqa: S311 - no secret
            with suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                ports.append(port)
        return ports


@contextmanager
def started(
    command: Sequence[str | Path],
    environ: Mapping[str, str],
    *,
    cwd: Path | None = None,
    end: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[str]]:
    """Run `command` with only `environ` as its environment; stderr is merged into stdout."""
    process = subprocess.Popen(
        command,
        env=environ,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    assert process.stdout
    output = Output(process.stdout)
    process.stdout = output  # type: ignore[assignment]
    try:
        yield process
    finally:
        process.send_signal(end)
        try:
            process.wait(timeout=60)
        finally:
            process.kill()
            process.wait()
            with suppress(ProcessLookupError):  # a child that it left would hold the pipe open
                os.killpg(process.pid, signal.SIGKILL)
            output.close()


def npm_ci(locked: Path, folder: Path) -> None:
    """Install the packages of `locked`'s package-lock.json, each checked against its hash."""
    npm = program("npm", "apt install nodejs npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(locked / name, folder)
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
