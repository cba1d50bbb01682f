"""Puts a server under load and measures the cost."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.benchmarks.programs import LOAD_CORE, running
from tests.benchmarks.servers import Failed, Server

V1 = "/v1/chat/completions"
LIMIT_S = 60
"""Seconds after which a hung measurement is abandoned."""


@dataclass(frozen=True)
class Case:
    """A load: each connection repeats its request for `seconds`, or sends it once if 0."""

    name: str
    connections: int
    seconds: float = 0
    tokens: int = 0
    """per stream; 0 means a plain chat"""
    pace: int = 0
    """tokens per second of each stream; 0 means as fast as they are read"""
    openai: bool = False
    """whether it is asked at /v1/chat/completions"""


class Figures(msgspec.Struct, frozen=True):
    """What one server used in one round."""

    cpu_us: float
    """CPU microseconds per chat, or per token of a stream"""
    per_s: float
    """chats or tokens per second"""
    first_ms: float
    """median milliseconds to the first byte of the body"""


@dataclass(frozen=True)
class Load:
    """The load generator."""

    program: Path

    def run(self, server: Server, case: Case) -> Figures:
        """Run the load of `case` on `server`; the warm-up does not count.

        Raises:
            Failed: an answer was wrong.
        """
        with self._ready("run", server, case) as process:
            before = server.cpu_s()
            result = _go(process, server, case)
            cpu_s = server.cpu_s() - before
        count = result["tokens"] if case.tokens else result["count"]
        return Figures(cpu_s * 1e6 / count, count / result["seconds"], result["first_ms"])

    def held_kb(self, server: Server, streams: int) -> float:
        """Return the KB of the server's memory per open stream, with `streams` open.

        Raises:
            Failed: not all of them could be opened and kept open.
        """
        openai = not server.answers(openai=False)
        self.run(server, Case("warming up", 4, 0.2, openai=openai))
        self.run(server, Case("warming up", 4, 0.2, tokens=4, openai=openai))
        case = Case(f"{streams} open streams", streams, tokens=60, pace=1, openai=openai)
        before = server.memory_bytes()
        with self._ready("hold", server, case) as process:
            time.sleep(1.5)
            used = server.memory_bytes() - before
            _go(process, server, case)
        return used / streams / 1000

    @contextmanager
    def _ready(self, mode: str, server: Server, case: Case) -> Iterator[subprocess.Popen[str]]:
        path = server.stream if case.tokens else server.chat
        if case.openai:
            path = V1
        numbers = (case.connections, case.seconds, case.tokens, case.pace, case.seconds + LIMIT_S)
        command = [str(self.program), mode, str(server.port), path, *map(str, numbers)]
        command += [server.headers] if server.headers else []
        with running(command, LOAD_CORE) as process:
            assert process.stdout
            process.stdout.readline()
            yield process


def _go(process: subprocess.Popen[str], server: Server, case: Case) -> dict[str, float]:
    """Start the load, or end it if streams are held; return its final report."""
    output, _ = process.communicate("\n")
    result: dict[str, float] = json.loads(output)
    if result["errors"]:
        raise Failed(f"{server.name}, {case.name}: {output.strip()}")
    return result
