"""The smoke test, against deployments that work and that do not."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from core.keys.editing import create
from deploy.smoke import HANGUL
from tests.conftest import Serve
from tests.fake_ollama import FakeOllama, error, tokens
from tests.programs import ROOT

CHECKS = 7


async def smoke(url: str, *arguments: str) -> tuple[int, list[str]]:
    """Return the exit code, and the lines that it printed."""
    ended = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "deploy.smoke", url, *arguments],
        cwd=ROOT,
        env={**os.environ, "NO_PROXY": "127.0.0.1", "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    return ended.returncode, ended.stdout.splitlines()


@pytest.fixture
def key(tmp_path: Path) -> str:
    return create(tmp_path / "keys.json", "smoke", alphanumeric=True)


@pytest.fixture
async def url(serve: Serve, fake: FakeOllama, key: str, tmp_path: Path) -> str:
    fake.default = tokens(["안녕", "하세요", "!"], pace_s=0.05)
    made: str = await serve(api_keys_file=str(tmp_path / "keys.json"))
    return made


async def test_a_deployment_that_works(url: str, key: str, fake: FakeOllama) -> None:
    code, lines = await smoke(url, "--key", key)
    assert (code, len(lines)) == (0, CHECKS), lines
    assert all(line.startswith("ok ") for line in lines)
    assert "안녕하세요!" in lines[2]
    asked = [request.json for request in fake.asked()]
    assert [body["messages"][-1]["content"] for body in asked].count(HANGUL) == 2
    assert asked[2]["options"]["num_predict"] == 2000


async def test_the_long_answer_may_be_skipped(url: str, key: str) -> None:
    code, lines = await smoke(url, "--key", key, "--long", "0")
    assert (code, len(lines)) == (0, CHECKS - 1)


async def test_what_fails_is_named(url: str, key: str, fake: FakeOllama) -> None:
    fake.default = error(500, "out of memory")
    code, lines = await smoke(url, "--key", key)
    assert code == 1
    failed = [line for line in lines if line.startswith("FAILED")]
    assert [line.split(": ")[0].split(maxsplit=1)[1] for line in failed] == [
        *("POST /api/chat", "POST /api/chat/stream", "a long answer"),
    ]
    assert "out of memory" in failed[0]


async def test_a_key_that_is_not_good(url: str) -> None:
    code, lines = await smoke(url, "--key", "owa_00000000_x", "--long", "0")
    assert code == 1
    assert lines[0].startswith("ok ")
    assert "HTTP 401" in lines[1]


async def test_a_deployment_that_is_not_there(url: str) -> None:
    gone = httpx.URL(url).copy_with(port=1)
    code, lines = await smoke(str(gone), "--long", "0")
    assert code == 1
    assert all(line.startswith("FAILED") for line in lines)
    assert "ConnectError" in lines[0]
