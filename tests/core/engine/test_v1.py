"""Compares the engine's OpenAI-compatible answers with those of a real Ollama."""

import json
import math
from array import array
from base64 import b64decode
from typing import Any

import httpx
import pytest

from tests.core.engine.asking import FRANCE, MODEL
from tests.recorded import FOLDER, Recorded

REQUESTS: dict[str, dict[str, Any]] = {
    entry["name"]: entry["request"]
    for entry in json.loads((FOLDER / "v1/manifest.json").read_text("utf-8"))
}
SAME_ANSWER = ["chat", "chat_n2"]
SAME_PROMPT = ["chat_korean", "completions"]
SAME_STREAM = ["chat_stream", "chat_stream_usage"]
SAME_ERROR = [
    *("chat_missing_model", "chat_stream_missing_model", "chat_no_model", "chat_no_messages"),
    *("chat_bad_json", "chat_wrong_type", "chat_bad_role", "chat_empty_body", "chat_get"),
    *("chat_tools_unsupported", "chat_reasoning_unsupported", "chat_image_remote_url"),
    *("model_missing", "unknown_path"),
]
VARIES = {"id", "created"}


async def repeat(engine: httpx.AsyncClient, name: str) -> httpx.Response:
    request = REQUESTS[name]
    body = request["body"]
    content = {"content": body} if isinstance(body, str) else {"json": body}
    return await engine.request(request["method"], request["path"], **content)


def media_type(response: httpx.Response) -> str:
    kind: str = response.headers.get("content-type", "")
    return kind.partition(";")[0]


def fixed(value: dict[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in value.items() if key not in VARIES}


def events(body: bytes) -> list[Any]:
    *parts, done, rest = body.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    return [json.loads(part.removeprefix(b"data: ")) for part in parts]


@pytest.mark.parametrize("name", SAME_ANSWER)
async def test_answers_token_for_token_as_recorded(engine: httpx.AsyncClient, name: str) -> None:
    recorded = Recorded(f"v1/{name}")
    response = await repeat(engine, name)
    assert response.status_code == 200
    assert media_type(response) == recorded.headers["Content-Type"]
    answer, expected = response.json(), json.loads(recorded.body)
    assert [*answer] == [*expected]
    assert fixed(answer) == fixed(expected)


@pytest.mark.parametrize("name", SAME_PROMPT)
async def test_reads_the_prompt_as_recorded(engine: httpx.AsyncClient, name: str) -> None:
    recorded = json.loads(Recorded(f"v1/{name}").body)
    answer = (await repeat(engine, name)).json()
    assert [*answer] == [*recorded]
    assert answer["usage"]["prompt_tokens"] == recorded["usage"]["prompt_tokens"]


@pytest.mark.parametrize("name", SAME_STREAM)
async def test_streams_event_for_event_as_recorded(engine: httpx.AsyncClient, name: str) -> None:
    recorded = Recorded(f"v1/{name}")
    response = await repeat(engine, name)
    assert media_type(response) == recorded.headers["Content-Type"]
    sent, expected = events(response.content), events(recorded.body)
    assert [fixed(event) for event in sent] == [fixed(event) for event in expected]
    assert len({event["id"] for event in sent}) == 1


@pytest.mark.parametrize("name", SAME_ERROR)
async def test_fails_as_recorded(engine: httpx.AsyncClient, name: str) -> None:
    recorded = Recorded(f"v1/{name}")
    response = await repeat(engine, name)
    assert response.status_code == recorded.status
    assert media_type(response) == recorded.headers["Content-Type"].partition(";")[0]
    assert response.content.strip() == recorded.body.strip()


async def test_completes_as_recorded_but_for_the_words(engine: httpx.AsyncClient) -> None:
    recorded = json.loads(Recorded("v1/completions").body)
    (choice,) = (await repeat(engine, "completions")).json()["choices"]
    assert [*choice] == [*recorded["choices"][0]]
    sent = events((await repeat(engine, "completions_stream")).content)
    assert "".join(event["choices"][0]["text"] for event in sent)
    *others, last = [event["choices"][0]["finish_reason"] for event in sent]
    assert set(others) == {None}
    assert last in {"stop", "length"}
    assert {event["object"] for event in sent} == {"text_completion"}


async def test_lists_its_model_as_recorded(engine: httpx.AsyncClient) -> None:
    recorded = json.loads(Recorded("v1/model").body)
    (listed,) = (await repeat(engine, "models")).json()["data"]
    assert fixed(listed) == fixed(recorded)
    assert (await repeat(engine, "model")).json() == listed


async def test_embeds_as_recorded(engine: httpx.AsyncClient) -> None:
    recorded = json.loads(Recorded("v1/embeddings").body)
    answer = (await repeat(engine, "embeddings")).json()
    assert (answer["model"], answer["usage"]) == (MODEL, recorded["usage"])
    for one, other in zip(answer["data"], recorded["data"], strict=True):
        pairs = zip(one["embedding"], other["embedding"], strict=True)
        assert sum(a * b for a, b in pairs) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("dimensions", [1, 64, 576, 577])
async def test_embeds_in_fewer_dimensions(engine: httpx.AsyncClient, dimensions: int) -> None:
    body: dict[str, Any] = {"model": MODEL, "input": ["a", "안녕"]}
    whole = (await engine.post("/v1/embeddings", json=body)).json()
    body["dimensions"] = dimensions
    answer = (await engine.post("/v1/embeddings", json=body)).json()
    assert answer["usage"] == whole["usage"]
    for short, full in zip(answer["data"], whole["data"], strict=True):
        first = full["embedding"][:dimensions]
        length = math.hypot(*first)
        assert short["embedding"] == pytest.approx([x / length for x in first], abs=1e-6)
    body["encoding_format"] = "base64"
    encoded = (await engine.post("/v1/embeddings", json=body)).json()
    for one, other in zip(encoded["data"], answer["data"], strict=True):
        numbers = array("f", b64decode(one["embedding"])).tolist()
        assert numbers == pytest.approx(other["embedding"], abs=1e-6)


async def test_a_text_longer_than_the_context_is_not_embedded(engine: httpx.AsyncClient) -> None:
    body = {"model": MODEL, "input": "word " * 200}
    assert (await engine.post("/v1/embeddings", json=body)).status_code == 200
    for text, status in (("word " * 5000, 400), ("", 400)):
        response = await engine.post("/v1/embeddings", json={**body, "input": text})
        assert response.status_code == status
        assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("name", ["chat_json", "chat_schema"])
async def test_follows_a_format(engine: httpx.AsyncClient, name: str) -> None:
    answer = (await repeat(engine, name)).json()
    said = json.loads(answer["choices"][0]["message"]["content"])
    assert isinstance(said, dict)
    assert name == "chat_json" or isinstance(said["capital"], str)


async def test_a_prompt_that_is_too_long_is_an_error(engine: httpx.AsyncClient) -> None:
    for stream in (False, True):
        body = {"model": MODEL, "messages": [{"role": "user", "content": "word " * 5000}]}
        response = await engine.post("/v1/chat/completions", json={**body, "stream": stream})
        assert response.status_code == 400
        assert "context length" in response.json()["error"]["message"]


async def test_parts_of_a_message_are_read_in_turn(engine: httpx.AsyncClient) -> None:
    parts = [{"type": "text", "text": FRANCE}]
    body = {"model": MODEL, "temperature": 0, "stop": " is", "max_tokens": 24}
    messages = [{"role": "user", "content": parts}]
    answer = await engine.post("/v1/chat/completions", json={**body, "messages": messages})
    (choice,) = answer.json()["choices"]
    assert choice["message"]["content"] == "The capital of France"
    assert choice["finish_reason"] == "stop"
    messages = [{"role": "user", "content": [{"type": "video"}]}]
    answer = await engine.post("/v1/chat/completions", json={**body, "messages": messages})
    assert answer.status_code == 400
