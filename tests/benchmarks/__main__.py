"""`python -m tests.benchmarks`: the bundle and its peers, side by side, on Linux.

Each server runs on one core, the upstream and the load on the others. What counts is the CPU time
of the server's processes for each operation, because a busy machine hardly changes it; ratios are
medians over pairs from the same round.
"""

import argparse
import shlex
import signal
import sys
import tempfile
from pathlib import Path

import msgspec

from tests.benchmarks import cold, report
from tests.benchmarks.load import Load
from tests.benchmarks.measuring import ONCE, measure_load, measure_memory
from tests.benchmarks.programs import Missing, allow_many_files, build
from tests.benchmarks.results import Results
from tests.benchmarks.servers import COMMANDS, OPEN_GATE, Failed, Lineup, missing, upstream


def main() -> int:
    """Measure, print the tables, and return 1 if some of the bundle's figures are missing."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    allow_many_files()
    names = [name for name in arguments.servers if _is_there(name)]
    results = Results()
    with tempfile.TemporaryDirectory() as folder:
        try:
            _measure(results, names, Path(folder), arguments)
        except (Failed, Missing) as error:
            sys.exit(str(error))
    if arguments.json:
        arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    command = shlex.join(["python", "-m", "tests.benchmarks", *sys.argv[1:]])
    print(report.markdown(results, names, arguments.streams, command))
    return int(not {"bundle", "functions"}.isdisjoint(results.failures))


def _measure(
    results: Results, names: list[str], folder: Path, arguments: argparse.Namespace
) -> None:
    built = build(folder)
    load = Load(built.load)
    with upstream(built.upstream) as source:
        lineup = Lineup(source.port, folder, {**OPEN_GATE, **dict(arguments.env)})
        if arguments.streams:
            measure_memory(results, lineup, names, load, arguments.streams)
        measure_load(
            results, lineup, names, load, source,
            rounds=arguments.rounds, seconds=arguments.seconds,
        )  # fmt: skip
        try:
            results.cold_ms = cold.measure(source.port, folder, 2 * arguments.rounds + 1)
        except Failed as failure:
            results.fail("functions", failure)


def _is_there(name: str) -> bool:
    lacking = missing(name)
    if lacking:
        print(f"{name} is left out: {lacking} is not installed", file=sys.stderr)
    return not lacking


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, help="default: 4")
    parser.add_argument("--seconds", type=float, help="length of each measurement; default: 1")
    parser.add_argument(
        "--quick", action="store_true", help="one short round, without the slowest server"
    )
    parser.add_argument("--servers", type=_names, help="comma-separated; default: all")
    parser.add_argument(
        "--streams", type=int, default=1000, help="streams to hold open; 0 disables it"
    )
    parser.add_argument(
        "--env", type=_setting, action="append", default=[], metavar="NAME=VALUE",
        help="a setting for the bundle; its gate is open by default",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for all figures")
    arguments = parser.parse_args()
    arguments.servers = arguments.servers or [
        name for name in COMMANDS if not (arguments.quick and name in ONCE)
    ]
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 4)
    arguments.seconds = arguments.seconds or (0.5 if arguments.quick else 1)
    return arguments


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(COMMANDS):
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(sorted(unknown))}")
    return names


def _setting(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not (name and found):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, not {text!r}")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
