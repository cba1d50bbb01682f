"""The SDKs and frameworks as their users call them, with whole answers and broken ones."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.v1.faults import rows
from tests.clients.v1.programs import CLIENTS, Client, install_for_node, skip_without
from tests.compatible import (
    CHAT,
    EMBEDDINGS,
    KEYS,
    MODEL,
    PLAIN,
    STREAMS,
    cut,
    replayed,
    text_of,
)
from tests.conftest import Serve
from tests.fake_ollama import Connection, FakeOllama, error, never_answers, whole
from tests.processes import bundle
from tests.recorded import Recorded

pytestmark = pytest.mark.timeout(600)
BUSY = error(503, "server busy, please try again.  maximum pending requests exceeded")
MISSING = error(404, f"model '{MODEL}' not found")


@pytest.fixture(scope="session")
def sdk_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdks")
    install_for_node(folder)
    return folder


@pytest.fixture(params=CLIENTS, ids=lambda client: client.title)
def client(request: pytest.FixtureRequest) -> Client:
    client: Client = request.param
    skip_without(client)
    return client


def recorded_text(path: str) -> str:
    """Return the text of the recorded stream for `path`."""
    return text_of(Recorded(f"v1/{STREAMS[path]}").body)


def said(message: dict[str, Any], finish_reason: str = "stop") -> Any:
    """Return the fake's reply with `message` in place of the recorded one."""
    answer = json.loads(Recorded("v1/chat").body)
    answer["choices"] = [
        {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}
    ]
    return whole(200, "application/json", json.dumps(answer).encode())


TOOL = said(
    {
        "content": "",
        "tool_calls": [
            {
                "id": "call_1",
                "index": 0,
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city":"서울"}'},
            }
        ],
    },
    "tool_calls",
)
PARSED = said({"content": '{"capital":"Paris"}'})


async def test_whole_answers_arrive_whole(
    serve: Serve, fake: FakeOllama, sdk_folder: Path, client: Client
) -> None:
    url = await serve(api_keys=KEYS, default_model=MODEL, rate_limit="off")
    fake.reply(replayed(PLAIN[client.path]), replayed(STREAMS[client.path]), path=client.path)
    plain, stream = await client.call(sdk_folder, url, "plain", "stream")
    assert plain["value"].strip()
    assert stream == {"value": recorded_text(client.path)}
    assert len(stream["value"]) > 3


@pytest.mark.parametrize(
    "chat", [client for client in CLIENTS if client.speaks_chat], ids=lambda client: client.title
)
async def test_tools_structured_outputs_and_embeddings(
    serve: Serve, fake: FakeOllama, sdk_folder: Path, chat: Client
) -> None:
    skip_without(chat)
    url = await serve(api_keys=KEYS, default_model=MODEL, rate_limit="off")
    fake.reply(TOOL, PARSED, path=CHAT)
    fake.reply(replayed("embeddings"), path=EMBEDDINGS)
    results = await chat.call(sdk_folder, url, "tool", "parse", "embed")
    assert [result.get("value") for result in results] == [
        ["weather", {"city": "서울"}],
        "Paris",
        [576, 576],
    ], results
    tool, parse = (request.json for request in fake.asked(CHAT))
    assert tool["tools"][0]["function"]["name"] == "weather"
    assert "capital" in json.dumps(parse["response_format"])


async def test_statuses_are_its_own_exceptions(
    serve: Serve, fake: FakeOllama, sdk_folder: Path, client: Client
) -> None:
    url = await serve(api_keys=KEYS, default_model=MODEL, rate_limit="2/hour")
    fake.reply(MISSING, BUSY, path=client.path)
    results = await client.call(sdk_folder, url, "stranger", "once", "once", "once")
    assert [result.get("status") for result in results] == [401, 404, 503, 429], results
    kinds = [result["kind"] for result in results]
    if client.name == "ai":
        assert set(kinds) == {"AI_APICallError"}
    elif client.name == "langchain":  # which makes subclasses of OpenAI's of its own
        assert kinds == [
            "OpenAIAuthenticationError",
            "OpenAIModelNotFoundError",
            "OpenAIAPIError",
            "OpenAIRateLimitError",
        ]
    else:
        assert kinds[:2] == ["AuthenticationError", "NotFoundError"]
        assert kinds[2] in {"InternalServerError", "ServiceUnavailableError"}
        assert kinds[3] == "RateLimitError"
    assert "not installed" in results[1]["error"]


async def test_a_client_that_leaves_or_gives_up_frees_the_gpu(
    serve: Serve, fake: FakeOllama, sdk_folder: Path, client: Client
) -> None:
    url = await serve(api_keys=KEYS, default_model=MODEL, rate_limit="off")
    fake.reply(cut(STREAMS[client.path], 0.5, Connection.hang), never_answers, path=client.path)
    cancelled, late = await client.call(sdk_folder, url, "cancel", "late")
    assert "error" not in cancelled, cancelled
    assert "Timeout" in late["kind"], late
    first, second = fake.asked(client.path)
    async with asyncio.timeout(20):
        await first.disconnected.wait()
        await second.disconnected.wait()


async def test_no_fault_is_taken_for_an_answer_and_no_model_runs_twice(
    serve: Serve, fake: FakeOllama, sdk_folder: Path, client: Client
) -> None:
    url = await serve(api_keys=KEYS, default_model=MODEL, rate_limit="off")
    found = await rows(client, fake, url, sdk_folder)
    assert [row for row in found if not row.outcome] == []
    broken = [row for row in found if row.case.text is None]
    assert [row for row in broken if "Ollama connection error" not in row.result["error"]] == []


@pytest.fixture(scope="module")
def real_url(engine_url: str) -> Iterator[str]:
    # Unbounded, the small model may write until its context is full.
    settings = {"DEFAULT_MODEL": MODEL, "RATE_LIMIT": "off", "MAX_PREDICT": "128"}
    with bundle(engine_url, API_KEYS=KEYS, **settings) as url:
        yield url


@pytest.mark.parametrize(
    "chat", [client for client in CLIENTS if client.speaks_chat], ids=lambda client: client.title
)
async def test_a_real_model_answers(real_url: str, sdk_folder: Path, chat: Client) -> None:
    skip_without(chat)
    results = await chat.call(sdk_folder, real_url, "plain", "stream", "parse", "embed", "cancel")
    assert not [result for result in results if "error" in result], results
    plain, stream, parsed, embedded, first = (result["value"] for result in results)
    assert plain
    assert stream
    assert isinstance(parsed, str)
    assert embedded == [576, 576]
    assert isinstance(first, str)


def test_the_recorded_answers_say_something() -> None:
    assert {bool(recorded_text(path)) for path in STREAMS} == {True}
