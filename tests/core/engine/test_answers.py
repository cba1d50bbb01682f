"""The model's answers: how they start, stop and share its time."""

import asyncio
import json
import time
from typing import Any

import httpx
import pytest

from tests.core.engine.asking import FRANCE, asked, lines, whole

STORY = "Tell me a long story about a ship."
LONG = "The quick brown fox jumps over the lazy dog. " * 300  # about 3000 tokens
KOREAN = "안녕하세요 안녕하세요 안녕하세요 안녕하세요 😀🎉"


async def test_knows_the_capital_of_france(engine: httpx.AsyncClient) -> None:
    answer = await whole(engine, FRANCE)
    assert "Paris" in answer["response"]
    assert answer["done_reason"] == "stop"


async def test_continues_a_conversation(engine: httpx.AsyncClient) -> None:
    first = await whole(engine, FRANCE)
    second = await whole(engine, "And of Germany?", context=first["context"])
    assert "Berlin" in second["response"]
    assert second["context"][: len(first["context"])] == first["context"]


async def test_gives_the_same_answer_to_the_same_question(engine: httpx.AsyncClient) -> None:
    answers = [await whole(engine, STORY) for _ in range(3)]
    assert len({answer["response"] for answer in answers}) == 1


async def test_a_seed_makes_sampling_repeatable(engine: httpx.AsyncClient) -> None:
    hot = {"temperature": 1.5, "num_predict": 12}
    first, again, other = [
        await whole(engine, STORY, options={**hot, "seed": seed}) for seed in (7, 7, 8)
    ]
    assert first["response"] == again["response"] != other["response"]


async def test_a_stream_and_a_plain_answer_are_the_same(engine: httpx.AsyncClient) -> None:
    streamed = [line async for line in lines(engine, STORY)]
    plain = await whole(engine, STORY)
    assert "".join(line["response"] for line in streamed) == plain["response"]
    assert streamed[-1]["context"] == plain["context"]
    assert streamed[-1]["eval_count"] == plain["eval_count"] == 40


async def test_num_predict_ends_an_answer(engine: httpx.AsyncClient) -> None:
    answer = await whole(engine, STORY, num_predict=3)
    assert answer["done_reason"] == "length"
    assert answer["eval_count"] == 3


async def test_a_stop_word_ends_an_answer(engine: httpx.AsyncClient) -> None:
    answer = await whole(engine, FRANCE, options={"stop": ["Paris"]})
    assert answer["done_reason"] == "stop"
    assert answer["response"] == "The capital of France is "
    assert answer["context"][-1] == 216  # the space, as recorded: not the half-sent " Paris"


async def test_never_cuts_a_character(engine: httpx.AsyncClient) -> None:
    schema = {"type": "string", "enum": [KOREAN]}
    texts = [line["response"] async for line in lines(engine, "x", format=schema, num_predict=100)]
    assert json.loads("".join(texts)) == KOREAN
    assert len(texts) > len(KOREAN.split())
    for limit in range(2, 6):
        answer = await whole(engine, KOREAN, format=schema, num_predict=limit)
        assert "\ufffd" not in answer["response"]


async def test_answers_in_json(engine: httpx.AsyncClient) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "old": {"type": "boolean"}},
        "required": ["city", "old"],
        "additionalProperties": False,
    }
    answer = await whole(engine, FRANCE, format=schema)
    assert [*json.loads(answer["response"])] == ["city", "old"]
    answer = await whole(engine, "Give JSON with key a.", format="json", num_predict=10)
    assert answer["response"].startswith("{")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "[:::"},
        {"$ref": "#/definitions/none"},
        {"type": "string", "pattern": "^(["},
        {"properties": [1]},
        {"type": "string", "minLength": 5, "maxLength": 2},
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_an_unsupported_schema_is_refused_rather_than_ignored(
    engine: httpx.AsyncClient, schema: dict[str, Any], stream: bool
) -> None:
    body = asked(FRANCE, format=schema, stream=stream)
    response = await engine.post("/api/generate", json=body)
    assert json.loads(response.text.splitlines()[-1]) == {"error": "invalid JSON schema in format"}


@pytest.mark.parametrize("token", [-1, 49152, 2**31, 2**40])
async def test_refuses_an_unknown_token_id(engine: httpx.AsyncClient, token: int) -> None:
    response = await engine.post("/api/generate", json=asked("hi", context=[1, token]))
    assert response.status_code == 400
    assert response.json()["error"]


@pytest.mark.parametrize("stream", [True, False])
async def test_refuses_an_overlong_prompt(engine: httpx.AsyncClient, stream: bool) -> None:
    body = asked(LONG * 2, stream=stream, truncate=False)
    response = await engine.post("/api/generate", json=body)
    assert response.status_code == 400
    assert response.json() == {"error": "the input length exceeds the context length"}


async def test_refuses_a_number_out_of_range(engine: httpx.AsyncClient) -> None:
    response = await engine.post("/api/generate", json=asked("x", options={"repeat_penalty": 0}))
    assert response.status_code == 400
    assert "repeat" in response.json()["error"]


async def test_two_streams_run_concurrently(engine: httpx.AsyncClient) -> None:
    times: list[list[float]] = [[], []]

    async def read(number: int) -> None:
        async for _ in lines(engine, f"{STORY} {number}", options={"num_predict": 60}):
            times[number].append(time.monotonic())

    await asyncio.gather(read(0), read(1))
    assert min(times[0]) < max(times[1])
    assert min(times[1]) < max(times[0])


async def test_more_requests_than_slots_are_all_answered(engine: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(whole(engine, FRANCE, num_predict=6) for _ in range(9)))
    assert all("Paris" in answer["response"] for answer in answers)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("prompt", [STORY, LONG], ids=["writing", "reading"])
async def test_a_disconnect_frees_the_engine(
    engine: httpx.AsyncClient, stream: bool, prompt: str
) -> None:
    """After nine clients of four slots disconnect, none of their requests may still be running."""
    endless = asked(prompt, stream=stream, num_predict=3000, options={"repeat_penalty": 1.5})

    async def leave() -> None:
        async with asyncio.timeout(0.5), engine.stream("POST", "/api/generate", json=endless) as r:
            await r.aread()

    async def left() -> None:
        with pytest.raises(TimeoutError):
            await leave()

    await asyncio.gather(*(left() for _ in range(9)))
    await asyncio.sleep(1)
    async with asyncio.timeout(30):  # otherwise its four slots would be busy for minutes
        await whole(engine, FRANCE, num_predict=6)
