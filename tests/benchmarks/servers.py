"""The compared servers and their resource usage."""

import socket
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from shutil import which

import psutil

from tests.benchmarks.programs import HERE, SERVER_CORE, UPSTREAM_CORE, running

OPEN_GATE = {
    "HOST": "127.0.0.1",
    "WEB_PORT": "0",
    "RATE_LIMIT": "off",
    "MAX_CONCURRENT": "100000",
    "MAX_QUEUE": "100000",
    "QUEUE_TIMEOUT_S": "300",
}
"""The bundle's settings: its gate does all its work but lets everything through."""


class Failed(Exception):
    """A server did not start or gave a wrong answer, so it has no figures."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    name: str
    port: int
    process: psutil.Process
    chat: str = "/api/chat"
    stream: str = "/api/chat/stream"

    def cpu_s(self) -> float:
        """Return the CPU seconds its processes have used."""
        times = [process.cpu_times() for process in self._tree()]
        return float(sum(each.user + each.system for each in times))

    def memory_bytes(self) -> int:
        """Return its processes' unique memory (USS)."""
        return sum(process.memory_full_info().uss for process in self._tree())

    def _tree(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@dataclass(frozen=True)
class Lineup:
    """Starts the servers in front of one upstream."""

    upstream_port: int
    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def start(self, name: str) -> Iterator[Server]:
        """Run the server `name`; enter the block once it listens, and stop it at the end.

        Raises:
            Failed: it does not start.
        """
        port, log = _free_port(), self.folder / f"{name}.log"
        environ = {
            "OLLAMA_BASE_URL": f"http://127.0.0.1:{self.upstream_port}",
            "PORT": str(port),
            **self.settings,
        }
        with running(COMMANDS[name](self, port), SERVER_CORE, environ, log) as process:
            if not _listens(port, process):
                raise Failed(f"{name} did not start: {log.read_text('utf-8')[-500:]}")
            yield Server(name, port, psutil.Process(process.pid))

    def nginx(self, port: int) -> list[str]:
        """Write nginx's configuration and return its command."""
        template = string.Template((HERE / "peers" / "nginx.conf").read_text("utf-8"))
        path = self.folder / "nginx.conf"
        values = {"FOLDER": self.folder, "PORT": port, "UPSTREAM": self.upstream_port}
        path.write_text(template.safe_substitute(values), "utf-8")
        return [_nginx() or "nginx", "-e", str(self.folder / "nginx.log"), "-c", str(path)]


def _python(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


COMMANDS: dict[str, Callable[[Lineup, int], list[str]]] = {
    "nginx": Lineup.nginx,
    "bundle": lambda _, port: _python("handlers"),
    # One thread per stream; gunicorn keeps alive only the connections beyond its threads.
    "flask": lambda _, port: _python(
        "gunicorn", "--threads=1100", "--worker-connections=4000", f"--bind=127.0.0.1:{port}",
        "tests.benchmarks.peers.flask_app:app",
    ),
    "naive": lambda _, port: _python(
        "uvicorn", f"--port={port}", "--no-access-log", "tests.benchmarks.peers.naive:app"
    ),
}  # fmt: skip
"""Each server's command."""

_MODULES = {"flask": ("flask", "gunicorn", "requests")}


def missing(name: str) -> str:
    """Return what the server `name` needs but is not installed, or "" if it can run."""
    if name == "nginx":
        return "" if _nginx() else "nginx"
    return ", ".join(module for module in _MODULES.get(name, ()) if not find_spec(module))


@contextmanager
def upstream(program: Path) -> Iterator[Server]:
    """Run the fast fake Ollama."""
    with running([str(program)], UPSTREAM_CORE) as process:
        assert process.stdout
        port = int(process.stdout.readline())
        pid = psutil.Process(process.pid)
        yield Server("upstream", port, pid, chat="/api/chat", stream="/api/chat")


def _nginx() -> str | None:
    return which("nginx") or which("nginx", path="/usr/sbin:/usr/local/sbin")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
    return port


def _listens(port: int, process: subprocess.Popen[str]) -> bool:
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.02)
    return False
