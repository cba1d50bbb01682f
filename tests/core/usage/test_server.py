"""What a server keeps of its counts when it is killed, and when its disk is full."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.usage.ledger import FLUSH_S, read_file
from tests.compatible import HEADERS, KEYS, STORED
from tests.processes import fake_ollama, running, wait_for, within
from tests.programs import program

CHAT = {"message": "hi", "model": "smollm2:135m"}
PATIENCE_S = 40
"""Beyond FLUSH_S, for a busy machine."""


@pytest.fixture(scope="module")
def ollama() -> Iterator[str]:
    with fake_ollama("--pace", "0") as url:
        yield url


@contextmanager
def serving(
    ollama: str, path: Path, *before: str, warning: str = "", **environ: str
) -> Iterator[Any]:
    """Run the server with its counts at `path`, as arguments of `before`; yield it and its URL.

    It must log `warning` before it listens.
    """
    own = {"OLLAMA_BASE_URL": ollama, "PORT": "0", "WEB_PORT": "0", "USAGE_FILE": str(path)}
    environ = {**own, "API_KEYS": KEYS, "LOG_FORMAT": "console", **environ}
    with running(*(before or ("-m", "handlers")), **environ) as process:
        if warning:
            wait_for(process.stdout, warning)
        yield process, wait_for(process.stdout, "Listening for the API on ")


def ask(url: str, status: int = 200) -> httpx.Response:
    answer = httpx.post(f"{url}/api/chat", json=CHAT, headers=HEADERS, trust_env=False, timeout=60)
    assert answer.status_code == status, answer.text
    return answer


def counted(path: Path) -> int:
    with suppress(sqlite3.Error):  # it may not be there yet
        return sum(row.requests for row in read_file(str(path)))
    return 0


def test_a_killed_server_has_kept_its_counts_and_budgets(ollama: str, tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    stored = {**STORED, "tokens": "46/day"}  # an answer of the fake costs 16 + 7
    keys = {"API_KEYS": json.dumps([stored])}
    with serving(ollama, path, **keys) as (process, url):
        ask(url)
        assert within(FLUSH_S + PATIENCE_S, lambda: counted(path) == 1)
        process.kill()
        process.wait()
    with serving(ollama, path, **keys) as (process, url):
        assert ask(url).headers["ratelimit"].split(", ")[-1].startswith('"tokens";r=23;')
        assert "quota" in ask(url, 429).json()["error"]
        process.kill()  # before it has written the second one
        process.wait()
    assert 1 <= counted(path) <= 2


FULL_DISK = """
import os, subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", sys.argv[1]], check=True)
try:
    with open(sys.argv[1] + "/ballast", "wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))
except OSError:
    os.execv(sys.executable, [sys.executable, "-m", "handlers"])
"""


def test_a_full_disk_stops_no_answer_and_is_logged_and_counted(ollama: str, tmp_path: Path) -> None:
    unshare = [program("unshare", "apt install util-linux"), "--mount"]
    unshare += ["--map-root-user"] if os.getuid() else []
    tried = subprocess.run([*unshare, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no file system can be mounted here: {tried.stderr.strip()}")
    # It becomes the server, so that ending it by its id ends the server.
    enter = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
    command = ("-c", enter, *unshare, sys.executable, "-c", FULL_DISK, str(tmp_path))
    full = "USAGE_FILE cannot be written"
    with serving(ollama, tmp_path / "usage.db", *command, warning=full) as (process, url):
        ask(url)
        ask(url)
        metrics = httpx.get(f"{url}/metrics", headers=HEADERS, trust_env=False).text
        assert "ollama_web_api_usage_failures 0.0" not in metrics
        assert "ollama_web_api_usage_failures " in metrics
        Path(f"/proc/{process.pid}/root{tmp_path}/ballast").unlink()
        wait_for(process.stdout, "USAGE_FILE can be written again")
        counts = httpx.get(f"{url}/api/usage", headers=HEADERS, trust_env=False).json()["usage"]
        assert [row["requests"] for row in counts] == [2]
