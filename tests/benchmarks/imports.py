"""`python -m tests.benchmarks.imports`: what importing a function costs, by who asks for it.

A package's time includes what only it needs: if two need the same module, the first one pays. The
least of several rounds counts, because other programs only add to it.
"""

import argparse
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator

from tests.benchmarks.cold import AS_PACKED

FUNCTIONS = ("health", "models", "chat")
OWN, STANDARD = "this project", "the rest of the standard library"
PACKAGES = ("asyncio", "msgspec", "httptools", "httpx", "mangum", "starlette")
GROUPS = (*PACKAGES, STANDARD, OWN)
_LINE = re.compile(r"import time: +(\d+) \| +\d+ \| ( *)(\S+)")


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    samples = [{name: measure(name) for name in FUNCTIONS} for _ in range(rounds + 1)][1:]
    print(f"| import, in ms | {' | '.join(f'`{name}`' for name in FUNCTIONS)} |")
    print(f"|---|{'---:|' * len(FUNCTIONS)}")
    rows = [
        [min(each[name].get(group, 0) for each in samples) for name in FUNCTIONS]
        for group in GROUPS
    ]
    for group, row in zip(
        (*GROUPS, "all"), (*rows, map(sum, zip(*rows, strict=True))), strict=True
    ):
        print(f"| {group} | {' | '.join(f'{ms:.1f}' if ms else '' for ms in row)} |")


def measure(function: str) -> dict[str, float]:
    """Return the milliseconds of importing `function`, by group."""
    bare = {module for module, _, _ in _imports("")}
    times: defaultdict[str, float] = defaultdict(float)
    for module, us, importers in _imports(f"import handlers.{function}"):
        if module not in bare:
            times[_group(module, importers)] += us / 1000
    return times


def _imports(code: str) -> Iterator[tuple[str, int, list[str]]]:
    """Yield each module that `code` imports, its microseconds, and who asked for it."""
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", f"{AS_PACKED}\n{code}"],
        env={**os.environ, "AWS_LAMBDA_FUNCTION_NAME": "benchmark"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    importers: list[str] = []
    for us, indent, module in reversed(_LINE.findall(ended.stderr)):  # importers come first
        del importers[len(indent) // 2 :]
        yield module, int(us), importers
        importers.append(module)


def _group(module: str, importers: list[str]) -> str:
    chain = [name.partition(".")[0] for name in (module, *reversed(importers))]
    named = next((name for name in chain if name in PACKAGES), None)
    if named:
        return named
    if chain[0] in {"core", "handlers"}:
        return OWN
    return STANDARD if chain[0] in sys.stdlib_module_names else chain[0]


if __name__ == "__main__":
    main()
