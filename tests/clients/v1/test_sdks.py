"""The SDKs for Node, against each way a stream can fail."""

import json
from pathlib import Path

import pytest

from tests.clients.conftest import run
from tests.conftest import Serve
from tests.fake_ollama import FakeOllama, error
from tests.handlers.test_v1 import (
    CHAT,
    FAULTS,
    KEY,
    KEYS,
    MESSAGES,
    MODEL,
    RESPONSES,
    STREAMS,
    replayed,
)
from tests.programs import ROOT, npm_ci, program
from tests.recorded import Recorded

PATHS = {"openai": CHAT, "ai": CHAT, "responses": RESPONSES, "anthropic": MESSAGES}


@pytest.fixture(scope="session")
def sdk_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdks")
    source = ROOT / "tests/clients/v1"
    npm_ci(source, folder)
    (folder / "sdks.mjs").write_bytes((source / "sdks.mjs").read_bytes())
    return folder


def said(path: str) -> str:
    """Return the text of the recorded stream for `path`."""
    text = ""
    for event in Recorded(f"v1/{STREAMS[path]}").body.split(b"\n\n"):
        data = event[event.find(b"data: ") + 6 :]
        if not data.startswith(b"{"):
            continue
        value = json.loads(data)
        choices = value.get("choices") or [{}]
        delta = value.get("delta") or choices[0].get("delta", "")
        if isinstance(delta, dict):
            delta = delta.get("text") or delta.get("content") or ""
        text += delta
    return text


@pytest.mark.parametrize("client", PATHS)
async def test_every_broken_stream_is_an_error_and_every_whole_one_is_whole(
    serve: Serve, fake: FakeOllama, sdk_folder: Path, client: str
) -> None:
    path = PATHS[client]
    missing = error(404, f"model '{MODEL}' not found")
    replies = [replayed(STREAMS[path]), *(fault(path) for fault in FAULTS.values()), missing]
    fake.reply(*replies, path=path)
    url = await serve(api_keys=KEYS, default_model=MODEL, rate_limit="off")
    node = program("node", "apt install nodejs")
    arguments = [client, url, KEY, MODEL, str(len(replies))]
    ended = await run(node, sdk_folder / "sdks.mjs", *arguments, cwd=sdk_folder)
    assert ended.status == 0, ended.errors
    whole, *broken, last = json.loads(ended.output.splitlines()[-1])
    assert whole == {"text": said(path)}
    assert [
        name for name, result in zip(FAULTS, broken, strict=True) if "error" not in result
    ] == []
    assert all("Ollama connection error" in result["error"] for result in broken), broken
    assert last["status"] == 404 or "not installed" in last["error"]
    assert len(fake.asked(path)) == len(replies), "an SDK ran the model twice"


def test_the_recorded_answers_say_something() -> None:
    assert {bool(said(path)) for path in PATHS.values()} == {True}
