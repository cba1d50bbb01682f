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
from tests.programs import ROOT, free_ports

OPEN_GATE = {
    "HOST": "127.0.0.1",
    "WEB_PORT": "0",
    "RATE_LIMIT": "off",
    "MAX_CONCURRENT": "100000",
    "MAX_QUEUE": "100000",
    "MAX_CONNECTIONS": "100000",
    "QUEUE_TIMEOUT_S": "300",
}
"""The bundle's settings: its gate does all its work but lets everything through."""


START_S = 120
"""LiteLLM's imports alone take many seconds."""
PEERS = ROOT / "build/peers"
"""Where tests/benchmarks/peers/install.sh puts the gateways, each in an environment of its own."""
PORTKEY = PEERS / "node_modules/@portkey-ai/gateway/build/start-server.js"
PORTKEY_HEADERS = (
    "Authorization: Bearer none\r\nx-portkey-provider: openai\r\n"
    "x-portkey-custom-host: http://127.0.0.1:{}/v1\r\n"
)
LITELLM = """
model_list:
  - model_name: "smollm2:135m"
    litellm_params: {{model: "openai/smollm2:135m", api_base: "{}", api_key: none}}
general_settings: {{dangerously_permit_weak_or_unset_master_key: true}}
"""
"""It answers everyone, like the bundle's gate here."""
ENVIRON = {
    "litellm": {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it downloads one
        "REPEATED_STREAMING_CHUNK_LIMIT": "1000000",  # after 100 equal tokens it sees a loop
    }
}
"""What else a server needs in its environment."""
NATIVE_ALONE, OPENAI_ALONE = ("flask", "naive"), ("litellm", "portkey")
"""Servers without /v1, and those with nothing else."""


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
    headers: str = ""
    """further lines of each request's head"""

    def answers(self, *, openai: bool) -> bool:
        """Return whether it has the API that a case needs."""
        return self.name not in (NATIVE_ALONE if openai else OPENAI_ALONE)

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
        (port,), log = free_ports(1), self.folder / f"{name}.log"
        environ = {
            "OLLAMA_BASE_URL": f"http://127.0.0.1:{self.upstream_port}",
            "PORT": str(port),
            **self.settings,
            **ENVIRON.get(name, {}),
        }
        with running(COMMANDS[name](self, port), SERVER_CORE, environ, log) as process:
            if not _listens(port, process):
                raise Failed(f"{name} did not start: {log.read_text('utf-8')[-500:]}")
            headers = PORTKEY_HEADERS.format(self.upstream_port) if name == "portkey" else ""
            yield Server(name, port, psutil.Process(process.pid), headers=headers)

    def nginx(self, port: int) -> list[str]:
        """Write nginx's configuration and return its command."""
        template = string.Template((HERE / "peers" / "nginx.conf").read_text("utf-8"))
        path = self.folder / "nginx.conf"
        values = {"FOLDER": self.folder, "PORT": port, "UPSTREAM": self.upstream_port}
        path.write_text(template.safe_substitute(values), "utf-8")
        return [_nginx() or "nginx", "-e", str(self.folder / "nginx.log"), "-c", str(path)]

    def litellm(self, port: int) -> list[str]:
        """Write the configuration of LiteLLM's proxy and return its command."""
        path = self.folder / "litellm.yaml"
        url = f"http://127.0.0.1:{self.upstream_port}/v1"
        path.write_text(LITELLM.format(url), "utf-8")
        listen = (f"--port={port}", "--host=127.0.0.1", "--num_workers=1", "--telemetry=False")
        return [str(PEERS / "litellm/bin/litellm"), f"--config={path}", *listen]


def _python(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


COMMANDS: dict[str, Callable[[Lineup, int], list[str]]] = {
    "nginx": Lineup.nginx,
    "bundle": lambda _, port: _python("handlers"),
    "portkey": lambda _, port: ["node", str(PORTKEY), f"--port={port}", "--headless"],
    "litellm": Lineup.litellm,
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
    """Return what the server `name` needs and this machine lacks, or "" if it can run."""
    if name == "nginx":
        return "" if _nginx() else "nginx"
    if name in OPENAI_ALONE:
        there = (PORTKEY if name == "portkey" else PEERS / "litellm/bin/litellm").is_file()
        return "" if there else f"{name} (tests/benchmarks/peers/install.sh)"
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


def _listens(port: int, process: subprocess.Popen[str]) -> bool:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.02)
    return False
