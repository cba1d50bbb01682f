"""Starts the servers that are compared, each on one core, and reads what they use of it."""

import os
import socket
import string
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import which

import psutil

HERE = Path(__file__).parent
SERVER_CORE, LOAD_CORE = 0, 1
FILES = 16_384
BUNDLE_SETTINGS = {
    "HOST": "127.0.0.1",
    "WEB_PORT": "0",
    "RATE_LIMIT": "off",
    "MAX_CONCURRENT": "100000",
    "MAX_QUEUE": "100000",
}
"""The gate lets everything through, and does all its work for it."""


@dataclass(frozen=True)
class Server:
    """A server under test."""

    name: str
    port: int
    process: psutil.Process

    def cpu_s(self) -> float:
        """Return the seconds of CPU that its processes have used."""
        times = [process.cpu_times() for process in self._tree()]
        seconds: float = sum(each.user + each.system for each in times)
        return seconds

    def memory_bytes(self) -> int:
        """Return the memory that is its processes' own."""
        return sum(process.memory_full_info().uss for process in self._tree())

    def _tree(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


@contextmanager
def start(name: str, command: list[str], port: int, core: int, **environ: str) -> Iterator[Server]:
    """Run `command` on `core`, from when it listens on `port` until the block ends."""
    pinned = ["taskset", "-c", str(core), "prlimit", f"--nofile={FILES}", *command]
    process = subprocess.Popen(
        pinned, env={**os.environ, **environ}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} does not start: {' '.join(command)}")
            time.sleep(0.02)
        yield Server(name, port, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(timeout=20)


@contextmanager
def upstream() -> Iterator[Server]:
    """Run the fast fake Ollama."""
    port = free_port()
    command = [sys.executable, "-m", "tests.benchmarks.upstream", str(port)]
    with start("upstream", command, port, LOAD_CORE) as server:
        yield server


@contextmanager
def contestants(upstream_port: int, folder: Path, names: list[str]) -> Iterator[list[Server]]:
    """Run those of `names` that can be run here."""
    url = f"http://127.0.0.1:{upstream_port}"
    with ExitStack() as stack:
        servers = []
        for name in names:
            port = free_port()
            if command := _command(name, port, upstream_port, folder):
                environ = {"OLLAMA_BASE_URL": url, "PORT": str(port), **BUNDLE_SETTINGS, **_given()}
                servers.append(
                    stack.enter_context(start(name, command, port, SERVER_CORE, **environ))
                )
            else:
                print(f"{name} is not installed here: left out", file=sys.stderr)
        yield servers


def _given() -> dict[str, str]:
    """Return the settings that the caller's own environment has another value for."""
    return {name: os.environ[name] for name in BUNDLE_SETTINGS if name in os.environ}


def _command(name: str, port: int, upstream_port: int, folder: Path) -> list[str] | None:
    python = sys.executable
    if name == "bundle":
        return [python, "-m", "handlers"]
    if name == "naive":
        app = "tests.benchmarks.peers.naive:app"
        return [python, "-m", "uvicorn", app, "--port", str(port), "--no-access-log"]
    if name == "flask":
        app = "tests.benchmarks.peers.flask_app:app"
        return [python, "-m", "gunicorn", "--threads", "1100", "-b", f"127.0.0.1:{port}", app]
    if not (nginx := which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")):
        return None
    template = string.Template((HERE / "peers" / "nginx.conf").read_text("utf-8"))
    configuration = folder / "nginx.conf"
    configuration.write_text(
        template.safe_substitute(FOLDER=folder, PORT=port, UPSTREAM=upstream_port), "utf-8"
    )
    return [nginx, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(configuration)]
