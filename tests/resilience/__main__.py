"""`python -m tests.resilience`: breaks what the gateway needs, and reports every outcome.

The quick form takes a minute or so, `--long` far longer. Both need Linux, root (for
a network namespace) and redis-server.
"""

import argparse
import asyncio
import resource
import shlex
import sys
import time

from tests.resilience.asking import Outcome
from tests.resilience.scenarios import SCENARIOS, Row

BAD = (Outcome.WRONG, Outcome.LOST, Outcome.HUNG)
COLUMNS = ("scenario", "sent", *Outcome, "sockets", "slots", "memory, MB")


def main() -> int:
    """Run the scenarios, print the table, and return 1 if anything is wrong, lost, hung or held."""
    parser = argparse.ArgumentParser(prog="python -m tests.resilience", description=__doc__)
    parser.add_argument("--long", action="store_true", help="the long form")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    failed, started = False, time.monotonic()
    for name in arguments.only:
        row = asyncio.run(SCENARIOS[name](arguments.long))
        print(_line(name, row), flush=True)
        for problem in row.tally.problems:
            sys.stderr.write(f"{name}: {problem}\n")
        failed |= any(row.tally[outcome] for outcome in BAD)
        failed |= row.after.slots > 0 or row.after.sockets > row.before.sockets
    command = shlex.join(["python", "-m", "tests.resilience", *sys.argv[1:]])
    print(f"\n`{command}`, {time.monotonic() - started:.0f} s")
    return failed


def _line(name: str, row: Row) -> str:
    before, after = row.before, row.after
    cells: list[object] = [
        name,
        row.tally.total(),
        *(row.tally[outcome] for outcome in Outcome),
        f"{before.sockets} → {after.sockets}",
        f"{before.slots} → {after.slots}",
        f"{before.memory_mb:.0f} → {after.memory_mb:.0f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
