"""The smoke test, against deployments that work and that do not."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from core.keys.editing import create
from deploy.smoke import HANGUL, Failed, Smoke
from tests.conftest import Serve
from tests.fake_ollama import Connection, FakeOllama, Request, error, tokens
from tests.programs import ROOT

CHECKS = 8


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


async def counts(connection: Connection, request: Request) -> None:
    """Answer as many tokens as were asked for, and a greeting otherwise."""
    count = request.json.get("options", {}).get("num_predict", 8192)
    reply = tokens(["안녕", "하세요", "!"] if count == 8192 else ["one "] * count, pace_s=0.02)
    await reply(connection, request)


@pytest.fixture
def key(tmp_path: Path) -> str:
    return create(tmp_path / "keys.json", "smoke", alphanumeric=True)


@pytest.fixture
async def url(serve: Serve, fake: FakeOllama, key: str, tmp_path: Path) -> str:
    fake.default = counts
    made: str = await serve(api_keys_file=str(tmp_path / "keys.json"))
    return made


async def test_a_deployment_that_works(url: str, key: str, fake: FakeOllama) -> None:
    code, lines = await smoke(url, "--key", key, "--long", "3")
    assert (code, len(lines)) == (0, CHECKS), lines
    assert all(line.startswith("ok ") for line in lines)
    assert "안녕하세요!" in lines[2]
    asked = [request.json for request in fake.asked()]
    assert [body["messages"][-1]["content"] for body in asked].count(HANGUL) == 2
    assert 3 <= int(lines[4].split()[-2]) < 60


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


async def test_an_answer_that_does_not_last_has_shown_nothing(
    url: str, key: str, fake: FakeOllama
) -> None:
    fake.default = tokens(["one", "two"])
    code, lines = await smoke(url, "--key", key)
    assert code == 1
    (failed,) = [line for line in lines if line.startswith("FAILED")]
    assert "an answer of 60 s is untested" in failed


ERROR = {"success": False, "error": "no"}
AS_JSON = "application/json"


@pytest.mark.parametrize(
    ("answers", "failures"),
    [
        ({}, []),
        ({"models": (403, AS_JSON, ERROR)}, ["a wrong key"]),
        ({"models": (401, AS_JSON, {"message": "Forbidden"})}, ["a wrong key"]),
        ({"models": (401, AS_JSON, {"success": False})}, ["a wrong key"]),
        ({"models": (401, "text/html", ERROR)}, ["a wrong key"]),
        ({"chat": (500, AS_JSON, ERROR)}, ["a wrong request"]),
        ({"chat": (400, AS_JSON, {**ERROR, "error": ""})}, ["a wrong request"]),
        ({"nothing": (404, AS_JSON, {"message": "Not Found"})}, []),
        ({"nothing": (404, AS_JSON, {"message": "Missing"})}, ["an unknown path"]),
        ({"nothing": (403, AS_JSON, ERROR)}, ["an unknown path"]),
    ],
)
def test_refusals_have_the_one_shape_and_the_contract_s_status(
    answers: dict[str, tuple[int, str, object]], failures: list[str]
) -> None:
    good = {"models": 401, "chat": 400, "nothing": 404}
    expected = {name: (status, AS_JSON, ERROR) for name, status in good.items()}

    def answer(request: httpx.Request) -> httpx.Response:
        status, kind, body = {**expected, **answers}[request.url.path.rpartition("/")[2]]
        return httpx.Response(status, headers={"content-type": kind}, text=json.dumps(body))

    with httpx.Client(transport=httpx.MockTransport(answer), base_url="https://x") as client:
        checks = dict(Smoke(client, long_s=0).checks())
        failed = []
        for name in ("a wrong key", "a wrong request", "an unknown path"):
            try:
                checks[name]()
            except Failed:
                failed.append(name)
    assert failed == failures
