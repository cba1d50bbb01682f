"""The quick form of `python -m tests.resilience`: nothing is wrong, lost or hung."""

import os
import re
import subprocess
import sys

import pytest

from tests.programs import program
from tests.resilience.scenarios import SCENARIOS


@pytest.mark.timeout(900)
@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
def test_nothing_is_wrong_lost_or_hung() -> None:
    for name in ("redis-server", "redis-cli"):
        program(name, "apt install redis-server")
    for name in ("ip", "nft"):
        program(name, "apt install iproute2 nftables")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.resilience"],
        capture_output=True,
        text=True,
        timeout=880,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = re.findall(r"^\| ([^|]+) \| \d+ \|.* 0 \| 0 \| 0 \|", ended.stdout, re.MULTILINE)
    assert rows == list(SCENARIOS)
