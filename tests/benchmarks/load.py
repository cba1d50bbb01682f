"""Puts load on a server, and measures what it costs."""

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

LIMIT_S = 60
"""Seconds after which a measurement that hangs is given up."""


@dataclass(frozen=True)
class Case:
    """A load: so many connections, each asking again and again for `seconds`, or once if 0."""

    name: str
    connections: int
    seconds: float = 0
    tokens: int = 0
    """of each stream; 0 is a plain chat"""
    pace: int = 0
    """tokens a second of each stream; 0 is as fast as they are taken"""


class Figures(msgspec.Struct, frozen=True):
    """What one server used in one round."""

    cpu_us: float
    """microseconds of CPU for each chat, or each token of a stream"""
    per_s: float
    """chats or tokens a second"""
    first_ms: float
    """milliseconds to the first byte of the body, in the median"""


@dataclass(frozen=True)
class Load:
    """The load generator."""

    program: Path

    def run(self, server: Server, case: Case) -> Figures:
        """Put the load of `case` on `server`; what is warmed up before does not count.

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
        """Return the KB that each of so many open streams takes of the server's memory.

        Raises:
            Failed: not all of them could be opened, and stayed so.
        """
        self.run(server, Case("warming up", 4, 0.2))
        self.run(server, Case("warming up", 4, 0.2, tokens=4))
        case = Case(f"{streams} open streams", streams, tokens=60, pace=1)
        before = server.memory_bytes()
        with self._ready("hold", server, case) as process:
            time.sleep(1.5)
            used = server.memory_bytes() - before
            _go(process, server, case)
        return used / streams / 1000

    @contextmanager
    def _ready(self, mode: str, server: Server, case: Case) -> Iterator[subprocess.Popen[str]]:
        path = server.stream if case.tokens else server.chat
        numbers = (case.connections, case.seconds, case.tokens, case.pace, case.seconds + LIMIT_S)
        command = [str(self.program), mode, str(server.port), path, *map(str, numbers)]
        with running(command, LOAD_CORE) as process:
            assert process.stdout
            process.stdout.readline()
            yield process


def _go(process: subprocess.Popen[str], server: Server, case: Case) -> dict[str, float]:
    """Let the load begin, or end if streams are held; return what it tells at its end."""
    output, _ = process.communicate("\n")
    result: dict[str, float] = json.loads(output)
    if result["errors"]:
        raise Failed(f"{server.name}, {case.name}: {output.strip()}")
    return result
