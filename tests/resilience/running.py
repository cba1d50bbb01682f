"""The programs of the suite: the gateway, its upstream and Redis, each killed by its id."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

import httpx
import psutil

from tests.programs import free_ports

START_S = 60
CALM_S = 25
"""How long sockets may take to close: idle connections to Ollama end after 15 s."""


class State(NamedTuple):
    """What a gateway holds."""

    sockets: int
    slots: int
    memory_mb: float


class Program:
    """A process at a fixed address that can be stopped, frozen and restarted."""

    def __init__(
        self,
        command: Sequence[str],
        url: str,
        *,
        environ: dict[str, str] | None = None,
        stdout: int = subprocess.DEVNULL,
        ready: Callable[[], bool],
    ) -> None:
        """Run `command`, which is up once `ready` returns true."""
        self.url = url
        self._command = command
        self._environ = {**os.environ, **(environ or {})}
        self._stdout = stdout
        self._ready = ready
        self.start()

    def start(self) -> None:
        """Run it, again if a connection of this machine has its port; return once it is ready."""
        deadline = time.monotonic() + START_S
        self._launch()
        while not self._ready():
            if time.monotonic() > deadline:
                self._process.kill()
                raise RuntimeError(f"{self._command} did not start")
            if self._process.poll() is not None:
                self._launch()
            time.sleep(0.02)

    def _launch(self) -> None:
        self._process = subprocess.Popen(
            self._command, env=self._environ, stdout=self._stdout, stderr=subprocess.DEVNULL
        )

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def stop(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal, and return once it has ended."""
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(number)
        self._process.wait(timeout=START_S)

    async def stop_without_blocking(self, number: int) -> None:
        await asyncio.to_thread(self.stop, number)

    async def start_without_blocking(self) -> None:
        await asyncio.to_thread(self.start)

    def state(self) -> State:
        """Return what it holds, as a gateway."""
        process = psutil.Process(self._process.pid)
        queue = httpx.get(f"{self.url}/api/stats", trust_env=False, timeout=5).json()["queue"]
        sockets = len([c for c in process.net_connections() if c.status != psutil.CONN_LISTEN])
        return State(sockets, queue["running"] + queue["waiting"], process.memory_info().rss / 1e6)

    async def calm_state(self, sockets: int) -> State:
        """Return what it holds once it has at most `sockets`, or has had time for that."""
        deadline = time.monotonic() + CALM_S
        while (state := self.state()).sockets > sockets or state.slots:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.2)
        return state


@contextmanager
def program(program: Program) -> Iterator[Program]:
    """End `program` at the end."""
    try:
        yield program
    finally:
        with suppress(ProcessLookupError):
            program.stop()


def answers(url: str) -> bool:
    """Return whether an HTTP server answers at `url`."""
    try:
        return httpx.get(url, trust_env=False, timeout=5).is_success
    except httpx.TransportError:
        return False


def upstream(*enter: str, host: str = "127.0.0.1") -> Program:
    """Return the upstream; `enter` runs it on another machine."""
    (port,) = free_ports(1)
    command = [*enter, sys.executable, "-m", "tests.resilience.upstream", "--host", host]
    url = f"http://{host}:{port}"
    return Program(
        [*command, "--port", str(port)], url, ready=lambda: answers(f"{url}/api/version")
    )


def gateway(
    ollama: str, *enter: str, stdout: int = subprocess.DEVNULL, environ: dict[str, str]
) -> Program:
    """Return the gateway in front of `ollama`; `enter` comes before its command."""
    (port,) = free_ports(1)
    own = {
        "OLLAMA_BASE_URL": ollama,
        "PORT": str(port),
        "WEB_PORT": "0",
        "RATE_LIMIT": "off",
        "MAX_CONCURRENT": "64",
        "MAX_QUEUE": "2000",
        "REQUEST_TIMEOUT_S": "30",
    }
    url = f"http://127.0.0.1:{port}"
    return Program(
        [*enter, sys.executable, "-m", "handlers"],
        url,
        environ={**own, **environ},
        stdout=stdout,
        ready=lambda: answers(f"{url}/api/openapi.json"),
    )


def redis() -> Program:
    """Return a redis-server on a free port."""
    (port,) = free_ports(1)
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]

    def ready() -> bool:
        ping = ["redis-cli", "-p", str(port), "ping"]
        return subprocess.run(ping, capture_output=True, check=False).stdout == b"PONG\n"

    return Program(command, f"redis://127.0.0.1:{port}", ready=ready)


def seen(ollama: str) -> dict[str, int]:
    """Return how often each request has reached the upstream at `ollama` since its start."""
    counts: dict[str, int] = httpx.get(f"{ollama}/seen", trust_env=False, timeout=30).json()
    return counts
