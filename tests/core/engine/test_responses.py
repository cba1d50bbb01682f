"""Compares the engine's responses with those of a real Ollama."""

import json
from typing import Any

import httpx
import pytest

from tests.core.engine.asking import FRANCE, MODEL, media_type, repeat
from tests.core.engine.test_messages import events, shape
from tests.recorded import Recorded

PATH = "/v1/responses"
VARIES = {"id", "created_at", "completed_at", "output", "usage"}


def fixed(response: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in response.items() if key not in VARIES}


def test_the_fields_that_vary_are_in_the_recording() -> None:
    assert json.loads(Recorded("v1/responses").body).keys() > VARIES


async def test_answers_in_the_form_recorded(engine: httpx.AsyncClient) -> None:
    recorded = Recorded("v1/responses")
    response = await repeat(engine, "responses")
    assert media_type(response) == recorded.headers["Content-Type"]
    answer, expected = response.json(), json.loads(recorded.body)
    assert answer.keys() == expected.keys()
    assert fixed(answer) == fixed(expected)
    assert shape(answer["usage"]) == shape(expected["usage"])
    assert answer["usage"]["input_tokens"] == expected["usage"]["input_tokens"]
    (item,), (other,) = answer["output"], expected["output"]
    assert shape(item) == shape(other)
    assert [part.keys() for part in item["content"]] == [part.keys() for part in other["content"]]
    assert item["content"][0]["text"]


async def test_streams_in_the_form_recorded(engine: httpx.AsyncClient) -> None:
    recorded = Recorded("v1/responses_stream")
    response = await repeat(engine, "responses_stream")
    assert media_type(response) == recorded.headers["Content-Type"]
    sent, expected = events(response.content), events(recorded.body)
    assert [event["sequence_number"] for event in sent] == [*range(len(sent))]
    texts = [event["delta"] for event in sent if event["type"] == "response.output_text.delta"]
    assert texts
    for ours, theirs in zip((*sent[:5], *sent[-4:]), (*expected[:5], *expected[-4:]), strict=True):
        assert ours["type"] == theirs["type"]
        assert ours.keys() == theirs.keys()
        if "response" in ours:
            assert fixed(ours["response"]) == fixed(theirs["response"])
    *_, done, _, item, end = sent
    assert done["text"] == "".join(texts)
    assert item["item"] == end["response"]["output"][0]
    assert item["item"]["content"][0]["text"] == "".join(texts)
    assert {event.get("item_id", item["item"]["id"]) for event in sent} == {item["item"]["id"]}


async def test_reads_every_form_of_input(engine: httpx.AsyncClient) -> None:
    part = {"type": "input_text", "text": FRANCE}
    message = {"role": "user", "content": [part]}
    said = set()
    for input_ in (FRANCE, [message], [{"type": "reasoning", "summary": []}, message]):
        body = {"model": MODEL, "input": input_, "temperature": 0, "max_output_tokens": 24}
        answer = (await engine.post(PATH, json=body)).json()
        said.add((answer["output"][0]["content"][0]["text"], answer["usage"]["input_tokens"]))
    ((text, read),) = said
    assert "Paris" in text
    output = {"type": "function_call_output", "call_id": "x", "output": "Paris"}
    more = [message, {**message, "role": "assistant"}, output]
    body = {"model": MODEL, "instructions": "Be brief.", "input": more, "max_output_tokens": 4}
    answer = (await engine.post(PATH, json=body)).json()
    assert answer["usage"]["input_tokens"] > read * 2
    assert answer["instructions"] == "Be brief."


async def test_follows_a_schema(engine: httpx.AsyncClient) -> None:
    city = {"type": "string", "maxLength": 20}
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"capital": city},
        "required": ["capital"],
    }
    schema["additionalProperties"] = False
    text = {"format": {"type": "json_schema", "name": "City", "schema": schema}}
    body = {"model": MODEL, "input": FRANCE, "text": text, "max_output_tokens": 128}
    answer = (await engine.post(PATH, json=body)).json()
    assert [*json.loads(answer["output"][0]["content"][0]["text"])] == ["capital"]
    assert answer["text"] == text


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({"model": ""}, 400, "model is required"),
        ({"model": "nope:1b"}, 404, "model 'nope:1b' not found"),
        ({"input": 5}, 400, "cannot unmarshal number"),
        ({"tools": [{"type": "function", "name": "f"}]}, 400, "does not support tools"),
        ({"reasoning": {"effort": "low"}}, 400, "does not support thinking"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, 400, "only text"),
        ({"input": [{"role": "user", "content": 5}]}, 400, "invalid message content type: float64"),
        ({"text": {"format": "json"}}, 400, "cannot unmarshal string"),
        ({"reasoning": {"effort": []}}, 400, "does not support thinking"),
        ({"input": "word " * 5000}, 400, "context length"),
    ],
)
async def test_what_it_cannot_do_is_an_error(
    engine: httpx.AsyncClient, fields: dict[str, Any], status: int, text: str
) -> None:
    for stream in (False, True):
        body = {"model": MODEL, "input": "hi", **fields, "stream": stream}
        answer = await engine.post(PATH, json=body)
        assert answer.status_code == status
        assert text in answer.json()["error"]["message"]
