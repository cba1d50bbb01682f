"""Compares the engine's OpenAI-compatible answers with those of a real Ollama."""

import json
from typing import Any

import httpx
import pytest

from tests.core.engine.asking import FRANCE, MODEL, REQUESTS, media_type, repeat
from tests.recorded import Recorded

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


async def test_a_call_of_a_tool_may_have_no_content(engine: httpx.AsyncClient) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    called = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "Paris"}
    messages = [{"role": "user", "content": FRANCE}, called, result]
    body = {"model": MODEL, "messages": messages, "max_tokens": 4}
    answer = await engine.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("name", ["chat_logprobs", "completions"])
async def test_logprobs_are_refused_not_forgotten(engine: httpx.AsyncClient, name: str) -> None:
    request = REQUESTS[name]
    answer = await engine.post(request["path"], json={**request["body"], "logprobs": True})
    assert answer.status_code == 400
    assert "no logprobs" in answer.json()["error"]["message"]
    without = await engine.post(request["path"], json={**request["body"], "logprobs": False})
    assert without.status_code == 200
