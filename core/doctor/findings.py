"""The doctor's findings, and how a terminal shows them."""

from collections.abc import Sequence
from typing import Literal

import msgspec

Level = Literal["ok", "warning", "problem"]
_MARKS: dict[Level, str] = {"ok": "ok", "warning": "WARN", "problem": "FAIL"}


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """The result of one check; all but an `ok` have `advice`."""

    check: str
    level: Level
    text: str
    advice: str = ""


def ok(check: str, text: str) -> Finding:
    """Return the finding of a check that passed."""
    return Finding(check, "ok", text)


def warning(check: str, text: str, advice: str) -> Finding:
    """Return a finding about something that works, but not well, or not for long."""
    return Finding(check, "warning", text, advice)


def problem(check: str, text: str, advice: str) -> Finding:
    """Return a finding that keeps requests from being answered, or lets strangers in."""
    return Finding(check, "problem", text, advice)


def table(findings: Sequence[Finding]) -> str:
    """Return the findings as lines for people."""
    width = max(len(finding.check) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{_MARKS[finding.level]:4}  {finding.check:{width}}  {finding.text}")
        if finding.advice:
            lines.append(f"{'':4}  {'':{width}}  -> {finding.advice}")
    return "\n".join(lines)
