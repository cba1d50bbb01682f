"""`python -m tests.benchmarks.packaged`: what importing the zipped functions costs.

Compares them with zips of sources alone, without the bytecode that deploy/package.py adds.
"""

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from zipfile import ZipFile

from deploy.package import FUNCTIONS
from tests.programs import ROOT

ROUNDS = 11
KINDS = ("sources alone", "as packed")


def main() -> None:
    """Pack for this machine, measure, and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        zips = Path(folder, "zips")
        command = [sys.executable, str(ROOT / "deploy/package.py"), "--output", str(zips)]
        target = (
            f"{platform.machine()}-manylinux2014",
            platform.python_version().rpartition(".")[0],
        )
        subprocess.run([*command, "--platform", target[0], "--python", target[1]], check=True)
        roots = {kind: Path(folder, kind) for kind in KINDS}
        for kind, root in roots.items():
            for function in FUNCTIONS:
                with ZipFile(zips / f"{function}.zip") as archive:
                    names = archive.namelist()
                    if kind == "sources alone":
                        names = [name for name in names if not name.endswith(".pyc")]
                    archive.extractall(root / function, names)
        print("| import, in ms of CPU | sources alone | as packed | zip, in MiB |")
        print("|---|---:|---:|---:|")
        for function in FUNCTIONS:
            samples: dict[str, list[float]] = {kind: [] for kind in KINDS}
            for _ in range(ROUNDS):
                for kind, root in roots.items():
                    bare = _milliseconds(root / function, "")
                    taken = _milliseconds(root / function, f"import handlers.{function}")
                    samples[kind].append(taken - bare)
            before, after = (median(samples[kind]) for kind in KINDS)
            size = (zips / f"{function}.zip").stat().st_size / 2**20
            print(f"| `{function}` | {before:.0f} | {after:.0f} | {size:.2f} |")


def _milliseconds(root: Path, code: str) -> float:
    """Return the CPU time of Python running `code` with only `root` to import from.

    Other programs on the machine hardly change it, and an import waits for nothing else.
    """
    command = [sys.executable, "-BSc", code]
    process = subprocess.Popen(command, cwd=root, env={"PYTHONPATH": str(root)})
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return (usage.ru_utime + usage.ru_stime) * 1000


if __name__ == "__main__":
    main()
