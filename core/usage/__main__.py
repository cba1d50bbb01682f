"""`python -m core.usage` prints who used how much, from USAGE_FILE."""

import argparse
import csv
import os
import signal
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from core.settings.environment import SettingsError
from core.settings.schema import Settings
from core.usage.ledger import Usage, read_file

_GROUPS = ("key", "model", "day")
_FIGURES = ("requests", "prompt_tokens", "tokens", "seconds")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table; exit with one line if there is no file to read."""
    options = _parser().parse_args(arguments)
    try:
        path = Settings.from_env(os.environ).usage_file
        if not path:
            sys.exit("Set USAGE_FILE to the path of the file with the counts")
        if not Path(path).exists():
            sys.exit(f"There is no {path} yet. A server with this USAGE_FILE makes it at its start")
        rows = _grouped(read_file(path, options.since), options.by)
    except SettingsError as error:
        sys.exit(str(error))
    except sqlite3.Error as error:
        sys.exit(f"USAGE_FILE cannot be read: {error}")
    _print(rows, [*options.by, *_FIGURES], options.format)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m core.usage", description=__doc__)
    parser.add_argument(
        "--by", type=_groups, default=["key", "model"], help="columns: key, model, day"
    )
    parser.add_argument("--since", type=_day, default=date.min, help="first day, as 2026-01-31")
    forms = parser.add_mutually_exclusive_group()
    for form, text in {"csv": "print CSV, for spreadsheets", "json": "print JSON"}.items():
        forms.add_argument(
            f"--{form}", dest="format", action="store_const", const=form, default="table", help=text
        )
    return parser


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("expected a day, such as 2026-01-31") from None


def _groups(text: str) -> list[str]:
    groups = [group.strip() for group in text.split(",")]
    if not groups or not set(groups) <= set(_GROUPS):
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(_GROUPS)}")
    return groups


def _grouped(usage: Sequence[Usage], groups: Sequence[str]) -> list[dict[str, Any]]:
    sums: dict[tuple[str, ...], list[float]] = defaultdict(lambda: [0, 0, 0, 0.0])
    for row in usage:
        names = {"key": row.caller, "model": row.model, "day": row.day}
        figures = sums[tuple(names[group] for group in groups)]
        for index, name in enumerate(_FIGURES):
            figures[index] += getattr(row, name)
    return [
        {
            **dict(zip(groups, key, strict=True)),
            **dict(zip(_FIGURES, (*figures[:3], round(figures[3], 1)), strict=True)),
        }
        for key, figures in sorted(sums.items())
    ]


def _print(rows: Sequence[dict[str, Any]], columns: Sequence[str], form: str) -> None:
    if form == "json":
        sys.stdout.buffer.write(msgspec.json.encode(rows) + b"\n")
    elif form == "csv":
        writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        lines = [columns, *([str(row[column]) for column in columns] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            cells = [
                cell.rjust(width) if name in _FIGURES else cell.ljust(width)
                for cell, width, name in zip(line, widths, columns, strict=True)
            ]
            sys.stdout.write("  ".join(cells).rstrip() + "\n")


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # "| head" ends it without a traceback
    main()
