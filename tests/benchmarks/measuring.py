"""The measurements and their order."""

import math
import sys
from collections.abc import Iterator
from contextlib import ExitStack

from tests.benchmarks.load import Case, Load
from tests.benchmarks.results import Results
from tests.benchmarks.servers import Failed, Lineup, Server

PLAIN = {n: f"plain chat, {n} connection{'s' * (n > 1)}" for n in (1, 32, 128)}
FLAT_OUT = {n: f"streamed flat-out, {n} stream{'s' * (n > 1)}" for n in (1, 64, 256)}
V1_PLAIN = "/v1: plain chat, 32 connections"
V1_FLAT_OUT = "/v1: streamed flat-out, 64 streams"
V1_PACED = "/v1: paced, 200 streams x 50 tokens/s"
V1_FIRST = "/v1: first token"
PACED = "paced, 200 streams x 50 tokens/s"
FIRST = "first token"
DIRECT = (PLAIN[32], FLAT_OUT[64], FIRST, V1_FIRST)
"""Cases also measured on the upstream itself."""
ONCE = ("naive",)
"""Servers so slow that one round must suffice."""


def cases(seconds: float) -> list[Case]:
    """Return the loads of one round; unpaced ones last `seconds`."""
    return [
        *(Case(name, n, seconds) for n, name in PLAIN.items()),
        *(Case(name, n, seconds, tokens=500) for n, name in FLAT_OUT.items()),
        Case(PACED, 200, tokens=50 * math.ceil(2 * seconds), pace=50),
        Case(FIRST, 1, seconds, tokens=2, pace=1000),
        Case(V1_PLAIN, 32, seconds, openai=True),
        Case(V1_FLAT_OUT, 64, seconds, tokens=500, openai=True),
        Case(V1_PACED, 200, tokens=50 * math.ceil(2 * seconds), pace=50, openai=True),
        Case(V1_FIRST, 1, seconds, tokens=2, pace=1000, openai=True),
    ]


def measure_load(
    results: Results, lineup: Lineup, names: list[str], load: Load, source: Server, *,
    rounds: int, seconds: float,
) -> None:  # fmt: skip
    """Measure every case on every server and the upstream, side by side in each round."""
    with ExitStack() as stack:
        servers = list(_started(results, lineup, names, stack))
        for number in range(1, rounds + 1):
            for case in cases(seconds):
                _tell(f"round {number} of {rounds}: {case.name}")
                for server in ([source] if case.name in DIRECT else []) + servers:
                    if number > 1 and server.name in ONCE:
                        continue
                    if not server.answers(openai=case.openai):
                        continue
                    figures = None
                    try:
                        figures = load.run(server, case)
                    except Failed as failure:
                        results.fail(server.name, failure)
                    of_case = results.cases.setdefault(case.name, {})
                    of_case.setdefault(server.name, []).append(figures)


def measure_memory(
    results: Results, lineup: Lineup, names: list[str], load: Load, streams: int
) -> None:
    """Measure the memory of open streams on servers that have done little else."""
    for name in names:
        _tell(f"{streams} open streams: {name}")
        try:
            with lineup.start(name) as server:
                results.held_kb[name] = load.held_kb(server, streams)
        except Failed as failure:
            results.fail(name, failure)


def _started(
    results: Results, lineup: Lineup, names: list[str], stack: ExitStack
) -> Iterator[Server]:
    for name in names:
        try:
            yield stack.enter_context(lineup.start(name))
        except Failed as failure:
            results.fail(name, failure)


def _tell(progress: str) -> None:
    print(progress, file=sys.stderr)
