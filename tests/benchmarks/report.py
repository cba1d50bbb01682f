"""Formats the measurements as Markdown tables."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.benchmarks.measuring import (
    FIRST,
    FLAT_OUT,
    PACED,
    PLAIN,
    V1_FIRST,
    V1_FLAT_OUT,
    V1_PACED,
    V1_PLAIN,
)
from tests.benchmarks.results import Results, cpu_us, middle, per_s

Rows = list[list[str]]


@dataclass(frozen=True)
class Target:
    """A figure's target: at most `first`, and `later` in time; at least, if `better`."""

    name: str
    measured: float | None
    first: float
    later: float
    better: bool = False

    def row(self) -> list[str]:
        return [self.name, _number(self.measured), self._verdict(self.first),
                self._verdict(self.later)]  # fmt: skip

    def _verdict(self, aim: float) -> str:
        if self.measured is None:
            verdict = "not measured"
        else:
            met = self.measured >= aim if self.better else self.measured <= aim
            verdict = "met" if met else "**not met**"
        return f"{'>=' if self.better else '<='} {aim:g}: {verdict}"


def markdown(results: Results, servers: list[str], streams: int, command: str) -> str:
    """Return all tables, and the line that says how they were measured."""
    parts = [
        _table(_measured(results, servers, streams)),
        _table([
            ["the bundle", "measured", "must reach", "where this is going"],
            *(target.row() for target in targets(results, streams)),
        ]),
        _table([
            ["function", "median of milliseconds"],
            *([name, f"{median(times):.0f}"] for name, times in results.cold_ms.items()),
        ]),
        *(line for lines in results.failures.values() for line in lines),
        _limit(results),
        f"`{command}`: {os.cpu_count()} cores of {_cpu_model()}, {_python()}",
    ]  # fmt: skip
    return "\n\n".join(parts)


def targets(results: Results, streams: int) -> list[Target]:
    """Return the targets."""
    plain, flat_out, paced = PLAIN[32], FLAT_OUT[64], PACED

    def of_nginx(case: str) -> float | None:
        return results.ratio(case, "bundle", "nginx")

    def of_flask(case: str) -> float | None:
        return results.ratio(case, "flask", "bundle")

    added = results.added_ratio(FIRST, "bundle", "nginx")
    held = results.held_kb.get("bundle")
    return [
        Target(f"{plain}: CPU, x nginx", of_nginx(plain), 4, 3),
        Target(f"{plain}: CPU, x better than Flask", of_flask(plain), 14, 18, better=True),
        Target(f"{flat_out}: CPU, x nginx", of_nginx(flat_out), 2.2, 2),
        Target(f"{flat_out}: CPU, x better than Flask", of_flask(flat_out), 10, 38, better=True),
        Target(f"{paced}: CPU, x nginx", of_nginx(paced), 1.9, 1.5),
        Target("added to the first token, x nginx", added, 1.9, 1.5),
        Target(f"each of {streams} open streams, KB", held, 12, 12),
        Target("cold health, x the eager stack", results.cold_ratio(), 0.5, 0.4),
    ]


def _measured(results: Results, servers: list[str], streams: int) -> Rows:
    rows = [["CPU for each (x nginx; least to most), and how many a second", *servers]]
    for case in (*PLAIN.values(), *FLAT_OUT.values(), PACED, V1_PLAIN, V1_FLAT_OUT, V1_PACED):
        unit = "a chat" if case in {*PLAIN.values(), V1_PLAIN} else "a token"
        rows.append([f"{case}: {unit}", *(_cell(results, case, name) for name in servers)])
    added, v1_added = (
        [_number(middle(results.added_ms(case, name)), " ms") for name in servers]
        for case in (FIRST, V1_FIRST)
    )
    held = (results.held_kb.get(name) for name in servers)
    rows.append(["added to the first token", *added])
    rows.append(["/v1: added to the first token", *v1_added])
    rows.append([f"each of {streams} open streams", *(_number(value, " KB") for value in held)])
    return rows


def _cell(results: Results, case: str, server: str) -> str:
    cpu, rate = results.median(case, server, cpu_us), results.median(case, server, per_s)
    ratio = results.ratio(case, server, "nginx")
    if cpu is None or rate is None:
        return "-"
    times = f" ({_number(ratio)} x)" if ratio else ""
    if server != "nginx" and (scatter := results.scatter(case, server, "nginx")):
        times = f" ({_number(ratio)} x; {' to '.join(map(_number, scatter))})"
    return f"{_number(cpu)} us{times}, {_number(rate)}/s"


def _number(value: float | None, unit: str = "") -> str:
    """Return `value` to three significant digits."""
    if value is None:
        return "-"
    return (f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}") + unit


def _table(rows: Rows) -> str:
    """Return `rows`, the first being the header, as a Markdown table."""
    head, *rest = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, f"|{'---|' * len(rows[0])}", *rest])


def _limit(results: Results) -> str:
    """Return what the upstream and the load generator reach with no server between them."""
    chats, tokens = (
        _number(results.median(case, "upstream", per_s)) for case in (PLAIN[32], FLAT_OUT[64])
    )
    return f"The benchmark's own limit: {chats} chats/s, {tokens} tokens/s."


def _python() -> str:
    return f"{platform.python_implementation()} {platform.python_version()}"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()
