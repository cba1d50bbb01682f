"""Conversations on /api/chat: how they start and stop, follow a schema, and outgrow the window."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from tests.core.engine.asking import FRANCE, MODEL, answer, streamed

STORY = "Tell me a long story about a ship."
LONG = "The quick brown fox jumps over the lazy dog. " * 300  # about 3000 tokens
TALK = [
    {"role": "system", "content": "Answer in a few words."},
    {"role": "user", "content": FRANCE},
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": "And of Germany?"},
]


def asked(*messages: dict[str, str], num_predict: int = 40, **fields: Any) -> dict[str, Any]:
    """Return a body as the gateway sends it: nothing may be cut off silently."""
    options = {"num_predict": num_predict, **fields.pop("options", {})}
    exact = {"truncate": False, "shift": False}
    return {"model": MODEL, "messages": messages, "options": options, **exact, **fields}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


async def whole(engine: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    return await answer(engine, "/api/chat", body)


def lines(engine: httpx.AsyncClient, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
    return streamed(engine, "/api/chat", body)


async def test_continues_a_conversation(engine: httpx.AsyncClient) -> None:
    assert "Berlin" in (await whole(engine, asked(*TALK)))["message"]["content"]


async def test_a_stream_and_a_plain_answer_are_the_same(engine: httpx.AsyncClient) -> None:
    streamed = [line async for line in lines(engine, asked(*TALK, user("And a story?")))]
    plain = await whole(engine, asked(*TALK, user("And a story?")))
    said = [line["message"]["content"] for line in streamed]
    assert "".join(said) == plain["message"]["content"]
    assert (said[-1], streamed[-1]["done"]) == ("", True)
    assert streamed[-1]["eval_count"] == plain["eval_count"]


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_follows_a_schema(engine: httpx.AsyncClient, stream: bool) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "old": {"type": "boolean"}},
        "required": ["city", "old"],
        "additionalProperties": False,
    }
    body = asked(user(FRANCE), format=schema)
    if stream:
        text = "".join([line["message"]["content"] async for line in lines(engine, body)])
    else:
        text = (await whole(engine, body))["message"]["content"]
    assert [*json.loads(text)] == ["city", "old"]


@pytest.mark.parametrize("stream", [True, False])
async def test_an_unsupported_schema_is_refused(engine: httpx.AsyncClient, stream: bool) -> None:
    body = asked(user(FRANCE), format={"type": "[:::"}, stream=stream)
    response = await engine.post("/api/chat", json=body)
    assert json.loads(response.text.splitlines()[-1]) == {"error": "invalid JSON schema in format"}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("messages", [[user(LONG * 2)], [user(LONG), *TALK[2:3], user(LONG)]])
async def test_an_overlong_conversation_is_refused(
    engine: httpx.AsyncClient, stream: bool, messages: list[dict[str, str]]
) -> None:
    response = await engine.post("/api/chat", json=asked(*messages, stream=stream))
    assert response.status_code == 400
    assert response.json() == {"error": "the input length exceeds the context length"}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("text", [STORY, LONG], ids=["writing", "reading"])
async def test_a_disconnect_frees_the_engine(
    engine: httpx.AsyncClient, stream: bool, text: str
) -> None:
    """After nine clients of four slots leave, none of their requests may still be running."""
    endless = asked(user(text), stream=stream, num_predict=3000, options={"repeat_penalty": 1.5})

    async def left() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5), engine.stream("POST", "/api/chat", json=endless) as r:
                await r.aread()

    await asyncio.gather(*(left() for _ in range(9)))
    async with asyncio.timeout(50):  # otherwise its four slots would be busy for minutes
        await whole(engine, asked(user(FRANCE), num_predict=6))


async def test_a_reader_who_leaves_a_stream_frees_its_slot(engine: httpx.AsyncClient) -> None:
    body = asked(user(STORY), num_predict=3000, options={"repeat_penalty": 1.5})
    for _ in range(6):
        async with aclosing(lines(engine, body)) as stream:
            await anext(stream)
    async with asyncio.timeout(50):
        assert "Paris" in (await whole(engine, asked(user(FRANCE))))["message"]["content"]
