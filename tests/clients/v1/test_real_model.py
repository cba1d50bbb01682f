"""OpenAI's and Anthropic's SDKs, the gateway and the built-in model, with nothing faked."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import httpx
import openai
import pydantic
import pytest

from tests.compatible import KEY, KEYS
from tests.processes import bundle

MODEL = "smollm2:135m"
QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY: Any = {"model": MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 24}
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


class Capital(pydantic.BaseModel):
    capital: str = pydantic.Field(max_length=20)


@pytest.fixture(scope="module")
def gateway(engine_url: str) -> Iterator[str]:
    with bundle(engine_url, API_KEYS=KEYS, DEFAULT_MODEL=MODEL, RATE_LIMIT="off") as url:
        yield url


@pytest.fixture
async def client(gateway: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{gateway}/v1", api_key=KEY, max_retries=0, timeout=100
    ) as client:
        yield client


async def test_whole_and_streamed_answers_are_the_same(client: openai.AsyncOpenAI) -> None:
    whole = await client.chat.completions.create(**GREEDY)
    assert "Paris" in (whole.choices[0].message.content or "")
    assert whole.usage
    assert whole.usage.prompt_tokens == 16
    stream = await client.chat.completions.create(
        **GREEDY, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    said = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(said) == whole.choices[0].message.content
    assert len(said) > 3
    assert chunks[-1].usage == whole.usage


async def test_an_answer_is_parsed(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.parse(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=128, response_format=Capital
    )
    assert answer.choices[0].message.parsed
    assert answer.choices[0].message.parsed.capital


async def test_older_completions_and_embeddings(client: openai.AsyncOpenAI) -> None:
    text = await client.completions.create(model=MODEL, prompt="Paris is", max_tokens=4)
    assert text.choices[0].text
    given = await client.embeddings.create(model=MODEL, input=["hello", "안녕"])
    assert [len(entry.embedding) for entry in given.data] == [576, 576]
    assert given.usage.prompt_tokens == 7


async def test_models_and_errors(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == [MODEL]
    with pytest.raises(openai.NotFoundError, match="is not installed"):
        await client.chat.completions.create(**{**GREEDY, "model": "nope:1b"})
    with pytest.raises(openai.BadRequestError, match="does not support tools"):
        await client.chat.completions.create(**GREEDY, tools=[TOOL])
    long: Any = [{"role": "user", "content": "word " * 5000}]
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(**{**GREEDY, "messages": long})


async def test_responses(client: openai.AsyncOpenAI) -> None:
    asked: Any = {"model": MODEL, "input": QUESTION, "temperature": 0}
    whole = await client.responses.create(**asked)
    assert "Paris" in whole.output_text
    assert whole.usage
    assert whole.usage.input_tokens == 16
    async with client.responses.stream(**asked) as stream:
        deltas = [
            event.delta async for event in stream if event.type == "response.output_text.delta"
        ]
        end = await stream.get_final_response()
    assert "".join(deltas) == end.output_text == whole.output_text
    assert end.usage == whole.usage
    parsed = await client.responses.parse(**asked, text_format=Capital)
    assert parsed.output_parsed
    assert parsed.output_parsed.capital


async def test_messages(gateway: str) -> None:
    asked: Any = {"model": MODEL, "messages": QUESTION, "max_tokens": 24}
    async with anthropic.AsyncAnthropic(base_url=gateway, api_key=KEY, max_retries=0) as client:
        whole = await client.messages.create(**asked)
        (block,) = whole.content
        assert block.type == "text"
        assert "Paris" in block.text
        assert (whole.stop_reason, whole.usage.input_tokens) == ("end_turn", 16)
        async with client.messages.stream(**asked) as stream:
            assert "".join([text async for text in stream.text_stream]) == block.text
            end = await stream.get_final_message()
        assert (end.stop_reason, end.usage) == (whole.stop_reason, whole.usage)
        with pytest.raises(anthropic.NotFoundError, match="is not installed"):
            await client.messages.create(**{**asked, "model": "nope:1b"})
        with pytest.raises(anthropic.BadRequestError, match="does not support tools"):
            await client.messages.create(**asked, tools=[{"name": "f", "input_schema": {}}])


async def test_a_client_that_leaves_or_gives_up_frees_its_slot(
    client: openai.AsyncOpenAI, gateway: str
) -> None:
    story: Any = [{"role": "user", "content": "Write a long story about a city."}]
    # At random, its story is sometimes over before anyone gives up.
    long: Any = {"model": MODEL, "messages": story, "temperature": 0, "max_tokens": 2000}
    stream = await client.chat.completions.create(**long, stream=True)
    await anext(aiter(stream))
    await stream.close()
    with pytest.raises(openai.APITimeoutError):
        await client.with_options(timeout=0.5).chat.completions.create(**long)
    async with httpx.AsyncClient(base_url=gateway) as http, asyncio.timeout(60):
        while (await http.get("/api/stats")).json()["queue"]["running"]:
            await asyncio.sleep(0.05)
