"""Compares the engine's messages with those of a real Ollama, as Anthropic's SDK reads both."""

import json
from typing import Any

import httpx
import pytest

from tests.core.engine.asking import FRANCE, MODEL, media_type, repeat
from tests.recorded import Recorded

PATH = "/v1/messages"


def events(body: bytes) -> list[Any]:
    """Return the events; each is named as its type."""
    found = []
    for part in body.split(b"\n\n")[:-1]:
        name, data = part.split(b"\n")
        found.append(json.loads(data.removeprefix(b"data: ")))
        assert name == b"event: " + found[-1]["type"].encode()
    return found


def shape(value: Any) -> Any:
    """Return the names of all fields in `value`, in order."""
    return {key: shape(item) for key, item in value.items()} if isinstance(value, dict) else None


async def test_answers_in_the_form_recorded(engine: httpx.AsyncClient) -> None:
    recorded = Recorded("v1/messages")
    response = await repeat(engine, "messages")
    assert media_type(response) == recorded.headers["Content-Type"]
    answer, expected = response.json(), json.loads(recorded.body)
    assert [*answer] == [*expected]
    assert [block.keys() for block in answer["content"]] == [{"type", "text"}]
    for name in ("type", "role", "model"):
        assert answer[name] == expected[name]
    assert answer["usage"].keys() == expected["usage"].keys()
    assert answer["usage"]["input_tokens"] == expected["usage"]["input_tokens"]


async def test_streams_in_the_form_recorded(engine: httpx.AsyncClient) -> None:
    recorded = Recorded("v1/messages_stream")
    response = await repeat(engine, "messages_stream")
    assert media_type(response) == recorded.headers["Content-Type"]
    sent, expected = events(response.content), events(recorded.body)
    shapes = [shape(event) for event in expected]
    assert [shape(event) for event in sent[:3]] == shapes[:3]
    assert [shape(event) for event in sent[-3:]] == shapes[-3:]
    kinds = [event["type"] for event in expected]
    assert [event["type"] for event in (*sent[:3], *sent[-3:])] == [*kinds[:3], *kinds[-3:]]
    texts = [event["delta"]["text"] for event in sent[2:-3]]
    assert len(texts) > 3
    assert "Paris" in "".join(texts)
    assert sent[-2]["usage"] == {"input_tokens": 16, "output_tokens": len(texts) + 1}
    assert sent[-2]["delta"] == {"stop_reason": "end_turn"}


async def test_reads_the_system_prompt_and_blocks(engine: httpx.AsyncClient) -> None:
    text: Any = {"type": "text", "text": FRANCE}
    result = {"type": "tool_result", "tool_use_id": "x", "content": [text]}
    said, read = set(), set()
    for system, content in (
        (None, FRANCE),
        (None, [text]),
        (None, [result]),
        ("Be brief.", [text]),
    ):
        message = {"role": "user", "content": content}
        body = {"model": MODEL, "max_tokens": 24, "messages": [message], "temperature": 0}
        body |= {"system": system, "stop_sequences": [" is"]}
        answer = (await engine.post(PATH, json=body)).json()
        if system is None:
            said.add(answer["content"][0]["text"])
        read.add(answer["usage"]["input_tokens"])
        assert answer["stop_reason"] == "end_turn"
    assert said == {"The capital of France"}
    assert len(read) == 2, "the system prompt was not read"


async def test_says_that_the_limit_cut_an_answer_short(engine: httpx.AsyncClient) -> None:
    message = {"role": "user", "content": FRANCE}
    body = {"model": MODEL, "max_tokens": 4, "messages": [message]}
    answer = (await engine.post(PATH, json=body)).json()
    assert (answer["stop_reason"], answer["usage"]["output_tokens"]) == ("max_tokens", 4)


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"model": ""}, 400, "model is required"),
        ({"model": "nope:1b"}, 404, "model 'nope:1b' not found"),
        ({"max_tokens": 0}, 400, "max_tokens is required and must be positive"),
        ({"messages": []}, 400, "messages is required"),
        ({"messages": "hi"}, 400, "cannot unmarshal string"),
        ({"tools": [{"name": "f"}]}, 400, "does not support tools"),
        ({"tools": "f"}, 400, "cannot unmarshal string"),
        ({"thinking": {"type": "enabled"}}, 400, "does not support thinking"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, 400, "only text"),
        ({"system": 5}, 400, "invalid message content type: float64"),
        ({"system": json.loads("[" * 700 + "]" * 700)}, 400, "exceeded max depth"),
        ({"messages": [{"role": "user", "content": "word " * 5000}]}, 400, "context length"),
    ],
)
async def test_what_it_cannot_do_is_an_error(
    engine: httpx.AsyncClient, fields: dict[str, Any], status: int, text: str
) -> None:
    body = {"model": MODEL, "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]}
    for stream in (False, True):
        answer = await engine.post(PATH, json={**body, **fields, "stream": stream})
        assert answer.status_code == status
        assert text in answer.json()["error"]["message"]
