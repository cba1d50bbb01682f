"""The benchmark itself works: every answer it counts has been looked at."""

import json
import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest


@pytest.mark.skipif(not which("wrk"), reason="wrk is not installed")
@pytest.mark.skipif(not which("taskset"), reason="taskset is not installed")
def test_it_measures_the_bundle(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--servers", "bundle"]
    command += ["--streams", "20", "--json", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "| streamed flat-out, 64 streams: CPU µs each |" in ended.stdout
    found = json.loads(path.read_text("utf-8"))
    assert len(found["figures"]) == 14
    assert all(values[0] > 0 for of in found["figures"].values() for values in of.values())
    assert found["held_kb"]["bundle"] > 0
