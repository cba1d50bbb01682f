"""`python -m core.doctor [--json]` examines this server; the exit status is 1 if it has problems.

It reads the same environment variables as the server, and changes nothing.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from core.doctor import access, certificates, machine, ollama
from core.doctor.findings import Finding, ok, problem, table
from core.doctor.start import check
from core.settings.environment import SettingsError
from core.settings.schema import Settings


async def examine(settings: Settings) -> list[Finding]:
    """Return the findings of all checks."""
    found: list[Finding] = []
    with suppress(SettingsError):  # the check of the start raises it too
        found += [finding async for finding in ollama.examine(settings)]
    for part in (access, certificates, machine):
        found += await asyncio.to_thread(list, part.examine(settings))
    try:
        check(replace(settings, api_keys_file=""))  # `access` has read it
    except SettingsError as error:
        if all(finding.text != str(error) for finding in found):
            advice = "python -m core.settings shows those in force"
            found.insert(0, problem("settings", str(error), advice))
        return found
    return [ok("settings", "valid"), *found]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the findings; return the exit status, which is 1 if there is a problem."""
    parser = argparse.ArgumentParser(prog="python -m core.doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    try:
        findings = asyncio.run(examine(Settings.from_env(os.environ)))
    except SettingsError as error:
        advice = "correct it in the environment, or in /etc/ollama-web-api/gateway.env"
        findings = [problem("settings", str(error), advice)]
    has_problem = any(finding.level == "problem" for finding in findings)
    if options.json:
        report = {"ok": not has_problem, "findings": findings}
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        sys.stdout.write(table(findings) + "\n")
    return int(has_problem)


if __name__ == "__main__":
    sys.exit(main())
