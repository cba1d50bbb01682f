"""The commands in the documents do what they say."""

import json
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.clients.conftest import run
from tests.compatible import KEY, KEYS
from tests.conftest import Serve
from tests.fake_ollama import FakeOllama, tokens, whole
from tests.programs import ROOT, program
from tests.recorded import Recorded

PAGES = ("README.md", "README.ko.md", "deploy/clients/README.md")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = [
    pytest.param(language, code, id=f"{page}-{code.split(maxsplit=1)[0]}-{number}")
    for page in PAGES
    for number, (language, code) in enumerate(_BLOCK.findall((ROOT / page).read_text("utf-8")), 1)
]

OUTPUT = {"", "json", "text"}
"""Blocks that show a response."""
TESTED_ELSEWHERE = {
    "powershell": "tests/clients/powershell",
    "yaml": "tests/clients/v1/test_configurations.py",
}
NOT_RUN = {
    "./start.sh": "installs, and serves until it is stopped",
    "OLLAMA_BASE_URL=http://10.0.0.5:11434 ": "the same, in front of a machine that is not here",
}
"""The beginnings of blocks that are not run, and why."""
RUN = [
    block
    for block in BLOCKS
    if block.values[0] not in OUTPUT | TESTED_ELSEWHERE.keys()
    and not str(block.values[1]).startswith(tuple(NOT_RUN))
]
ANSWER = ["4", "! 안녕", "하세요"]


@pytest.mark.parametrize(("language", "code"), RUN)
async def test_every_block_of_code_works(
    request: pytest.FixtureRequest,
    serve: Serve,
    fake: FakeOllama,
    tmp_path: Path,
    language: str,
    code: str,
) -> None:
    fake.default = tokens(ANSWER)
    fake.reply(
        whole(200, "application/json", Recorded("v1/chat").body), path="/v1/chat/completions"
    )
    url = await serve(rate_limit="off", api_keys=KEYS, usage_file=str(tmp_path / "usage.db"))
    code = code.replace("owa_...", KEY)
    code = code.replace("127.0.0.1:5000", urlsplit(url).netloc)
    code = code.replace(".venv/bin/python", sys.executable).replace("deploy/", f"{ROOT}/deploy/")
    if language == "sh":
        program("curl", "apt install curl")
        ended = await run("bash", "-euc", code, cwd=tmp_path, PYTHONPATH=str(ROOT))
    elif language == "python":
        ended = await run(sys.executable, "-c", code, cwd=tmp_path)
    else:
        assert language == "js", f"who runs {language}?"
        folder = request.getfixturevalue("node_folder")
        script = folder / "snippet.mjs"
        script.write_text(code, "utf-8")
        ended = await run(program("node", "apt install nodejs"), script, cwd=folder)
    assert ended.status == 0, ended.errors
    assert ended.output.strip()
    if "/api/chat" in code:
        assert "4" in ended.output
        assert "안녕" in ended.output
        assert '"success":false' not in ended.output


@pytest.mark.parametrize("page", PAGES[:2])
async def test_the_answers_that_are_shown_have_fields_that_come(
    serve: Serve, fake: FakeOllama, page: str
) -> None:
    shown = [
        json.loads(line)
        for language, code in _BLOCK.findall((ROOT / page).read_text("utf-8"))
        if language in OUTPUT
        for line in code.splitlines()
        if line.startswith("{")
    ]
    body = {"message": "안녕하세요!"}
    async with httpx.AsyncClient(base_url=await serve()) as client:
        stream = await client.post("/api/chat/stream", json=body)
        lines = [json.loads(line) for line in stream.content.split(b"\n")[:-1]]
        come = [
            (await client.get("/api/health")).json(),
            (await client.get("/api/models")).json(),
            (await client.post("/api/chat", json=body)).json(),
            *(lines[0], lines[0], lines[-1]),
        ]
    assert len(shown) == len(come)
    for one, other in zip(shown, come, strict=True):
        assert one.keys() <= other.keys()
        assert {name: type(one[name]) for name in one} == {name: type(other[name]) for name in one}


def test_both_languages_have_the_same_code() -> None:
    english, korean = (
        [
            code
            for language, code in _BLOCK.findall((ROOT / page).read_text("utf-8"))
            if language not in {"", "text"}
        ]
        for page in PAGES[:2]
    )
    assert len(english) == len(korean)
    for one, other in zip(english, korean, strict=True):
        assert re.sub(r" *#.*", "", one) == re.sub(r" *#.*", "", other)


def test_what_is_not_run_is_still_there() -> None:
    codes = [str(block.values[1]) for block in BLOCKS]
    assert all(any(code.startswith(start) for code in codes) for start in NOT_RUN)
    assert TESTED_ELSEWHERE.keys() <= {block.values[0] for block in BLOCKS}


def test_both_languages_have_the_same_figures() -> None:
    row = re.compile(r"^\|[^|]+((?:\| [\d.,]+.*)\|)$", re.MULTILINE)
    english, korean = (
        [re.findall(r"\d[\d.,]*", cells) for cells in row.findall((ROOT / page).read_text("utf-8"))]
        for page in PAGES[:2]
    )
    assert english
    assert english == korean
