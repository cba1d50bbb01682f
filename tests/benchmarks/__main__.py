"""`python -m tests.benchmarks`: this project's bundle and its peers, side by side, on Linux.

Each server runs on one core, the upstream and the load on the other. What counts is the CPU time
of the server's processes for each operation, because a busy machine hardly changes it; ratios are
medians of pairs from the same round. Variables such as RATE_LIMIT are handed on to the bundle.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from shutil import which
from statistics import median

from tests.benchmarks import cold, load
from tests.benchmarks.servers import Server, contestants, upstream

NAMES = ("nginx", "bundle", "flask", "naive")
Figures = dict[str, dict[str, list[float]]]
"""measure -> server -> one value a round"""


def cases(seconds: int) -> dict[str, Callable[[Server], dict[str, float]]]:
    """Return what is measured, by name."""
    plain = {
        f"plain chat, {n} connections": lambda server, n=n: load.run(server, n, seconds)
        for n in (1, 32, 128)
    }
    flat_out = {
        f"streamed flat-out, {n} streams": lambda server, n=n: load.run(
            server, n, seconds, tokens=500
        )
        for n in (1, 64, 256)
    }
    paced = {
        "paced, 200 streams x 50 tokens/s": lambda server: load.run(
            server, 200, max(4, seconds), tokens=100, pace=50
        )
    }
    return {**plain, **flat_out, **paced}


def measure(servers: list[Server], rounds: int, seconds: int) -> Figures:
    """Measure every case on every server, round by round."""
    figures: Figures = {}
    for _ in range(rounds):
        for case, measured in cases(seconds).items():
            for server in servers:
                print(f"{case}: {server.name} ...", file=sys.stderr)
                try:
                    result = measured(server)
                except load.Failed as failure:
                    print(failure, file=sys.stderr)
                    result = {}
                for unit, value in result.items():
                    figures.setdefault(f"{case}, {unit}", {}).setdefault(server.name, []).append(
                        value
                    )
    return figures


def first_tokens(servers: list[Server], source: Server, count: int) -> dict[str, float]:
    """Return the milliseconds that each server adds to the time to the first token."""
    lines = {server.name: load.OneByOne(server) for server in (source, *servers)}
    samples: dict[str, list[float]] = {name: [] for name in lines}
    for _ in range(count):
        for name, line in lines.items():
            samples[name].append(line.first_token_s() * 1000)
    for line in lines.values():
        line.close()
    direct = median(samples.pop(source.name))
    return {name: median(times) - direct for name, times in samples.items()}


def held(servers: list[Server], streams: int) -> dict[str, float]:
    """Return the KB that each of so many open streams takes of a server."""
    found = {}
    for server in servers:
        try:
            found[server.name] = load.held_bytes(server, streams) / 1000
        except load.Failed as failure:
            print(failure, file=sys.stderr)
    return found


def ratio(figures: Figures, case: str, over: str, under: str) -> float | None:
    """Return the median of the ratios of the same round."""
    of = figures[f"{case}, cpu_us"]
    pairs = list(zip(of.get(over, ()), of.get(under, ()), strict=False))
    return median(a / b for a, b in pairs) if pairs else None


def table(rows: list[list[str]]) -> str:
    """Return `rows`, the first being the head, as a table in Markdown."""
    head, *rest = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, f"|{'---|' * len(rows[0])}", *rest])


def shown(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"


def report(
    figures: Figures,
    added_ms: dict[str, float],
    held_kb: dict[str, float],
    cold_ms: dict[str, float],
) -> str:
    """Return all figures, and what was aimed at, in Markdown."""
    names = [name for name in NAMES if any(name in of for of in figures.values())]
    rows = [["", *names]]
    for case, of in figures.items():
        measure_, unit = case.rsplit(", ", 1)
        unit = {"cpu_us": "CPU µs each", "per_s": "a second"}[unit]
        values = [median(of[name]) if name in of else None for name in names]
        rows.append([f"{measure_}: {unit}", *map(shown, values)])
    rows.append(["added to the first token, ms", *(shown(added_ms.get(name)) for name in names)])
    rows.append(["each of 1000 open streams, KB", *(shown(held_kb.get(name)) for name in names)])
    parts = [table(rows), targets(figures, added_ms, held_kb, cold_ms)]
    parts.append(table([["import, ms", *cold_ms], ["", *map(shown, cold_ms.values())]]))
    model = next(
        (line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
         if line.startswith("model name")), platform.machine(),
    )  # fmt: skip
    parts.append(
        f"`{' '.join(['python -m tests.benchmarks', *sys.argv[1:]])}` on {os.cpu_count()} cores of "
        f"{model}, Python {platform.python_version()}"
    )
    return "\n\n".join(parts)


def targets(
    figures: Figures,
    added_ms: dict[str, float],
    held_kb: dict[str, float],
    cold_ms: dict[str, float],
) -> str:
    """Return the table of what was aimed at; each ratio is of CPU time in the same round."""
    plain, flat_out = "plain chat, 32 connections", "streamed flat-out, 64 streams"
    paced = "paced, 200 streams x 50 tokens/s"
    added = added_ms.get("bundle", 0) / added_ms["nginx"] if "nginx" in added_ms else None
    wanted = [
        (f"{plain}: of nginx", ratio(figures, plain, "bundle", "nginx"), "<= 15", "<= 3"),
        (f"{plain}: better than Flask", ratio(figures, plain, "flask", "bundle"), ">= 4", ">= 18"),
        (f"{flat_out}: of nginx", ratio(figures, flat_out, "bundle", "nginx"), "<= 8", "<= 2.2"),
        (
            f"{flat_out}: better than Flask",
            ratio(figures, flat_out, "flask", "bundle"),
            ">= 10",
            ">= 38",
        ),
        (f"{paced}: of nginx", ratio(figures, paced, "bundle", "nginx"), "<= 3.4", "<= 1.6"),
        ("added to the first token: of nginx's", added, "<= 3.5", "<= 1.5"),
        ("each of 1000 open streams, KB", held_kb.get("bundle"), "<= 30", "<= 13"),
        (
            "first answer of a function: of the eager stack",
            cold_ms["health / eager"],
            "<= 0.65",
            "<= 0.4",
        ),
    ]
    rows = [["ratio", "measured", "wanted first", "wanted in the end"]]
    return table(rows + [[name, shown(value), first, end] for name, value, first, end in wanted])


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--servers", default=",".join(NAMES))
    parser.add_argument("--streams", type=int, default=1000, help="to hold open")
    parser.add_argument("--json", type=Path, help="file to write all figures to")
    arguments = parser.parse_args()
    if missing := [tool for tool in ("wrk", "taskset", "prlimit") if not which(tool)]:
        sys.exit(f"{', '.join(missing)} is needed; on Debian: apt install wrk util-linux")
    rounds, seconds = (1, 1) if arguments.quick else (arguments.rounds, arguments.seconds)
    with (
        tempfile.TemporaryDirectory() as folder,
        upstream() as source,
        contestants(source.port, Path(folder), arguments.servers.split(",")) as servers,
    ):
        held_kb = held(servers, arguments.streams)
        figures = measure(servers, rounds, seconds)
        added_ms = first_tokens(servers, source, count=100 * rounds)
        cold_ms = cold.measure(source.port, rounds=3 * rounds)
    if arguments.json:
        everything = {
            "figures": figures,
            "added_ms": added_ms,
            "held_kb": held_kb,
            "cold_ms": cold_ms,
        }
        arguments.json.write_text(json.dumps(everything, indent=1), "utf-8")
    print(report(figures, added_ms, held_kb, cold_ms))


if __name__ == "__main__":
    main()
