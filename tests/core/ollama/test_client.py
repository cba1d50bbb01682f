import asyncio
from collections.abc import AsyncIterator

import pytest

from core.contract.errors import ModelNotFound, OllamaError
from core.contract.schemas import ChatRequest, Message
from core.ollama.client import OllamaClient
from core.ollama.upstream import Upstream
from core.settings.schema import Settings
from tests.fake_ollama import (
    Connection,
    FakeOllama,
    Reply,
    Request,
    after,
    error,
    stalls_after,
    tokens,
)

HI = [Message(role="user", content="hi")]


@pytest.fixture
async def upstream(fake: FakeOllama) -> AsyncIterator[Upstream]:
    upstream = Upstream(Settings(ollama_base_url=fake.url))
    yield upstream
    upstream.pool.close()


@pytest.fixture
def near(fake: FakeOllama, upstream: Upstream) -> OllamaClient:
    return OllamaClient(Settings(ollama_base_url=fake.url), upstream)


@pytest.fixture
def far(upstream: Upstream) -> OllamaClient:
    """Return a client of the same server with an internet URL; TLS is the connection's business."""
    return OllamaClient(Settings(ollama_base_url="https://relay.example"), upstream)


@pytest.mark.parametrize(
    "reply",
    [
        tokens(["안녕", "하세요! ", "😀\u2028끝"]),
        tokens([], final_text="4"),
        tokens(["4"], thinking=["2 and ", "2"]),
    ],
)
@pytest.mark.parametrize("think", [True, False])
async def test_a_remote_plain_answer_is_the_same_and_comes_as_a_stream(
    fake: FakeOllama, near: OllamaClient, far: OllamaClient, reply: Reply, think: bool
) -> None:
    fake.reply(reply, reply)
    chat = ChatRequest(messages=HI, think=think)
    assert await far.chat(chat, "m") == await near.chat(chat, "m")
    assert [request.json["stream"] for request in fake.asked()] == [True, False]


async def test_a_remote_plain_answer_that_ends_early_is_an_error(
    fake: FakeOllama, far: OllamaClient
) -> None:
    fake.reply(after(3, lambda connection: connection.transport.close()))
    with pytest.raises(OllamaError, match="the connection to Ollama broke"):
        await far.chat(ChatRequest(messages=HI), "llama3.1:70b")
    fake.reply(after(3, Connection.send_end))
    with pytest.raises(OllamaError, match="ended before it was complete"):
        await far.chat(ChatRequest(messages=HI), "llama3.1:70b")
    fake.reply(error(404, "model 'llama3.1:70b' not found"))
    with pytest.raises(ModelNotFound):
        await far.chat(ChatRequest(messages=HI), "llama3.1:70b")


async def test_abandoning_a_remote_plain_answer_stops_the_model(
    fake: FakeOllama, far: OllamaClient
) -> None:
    fake.reply(stalls_after(2))
    task = asyncio.create_task(far.chat(ChatRequest(messages=HI), "llama3.1:70b"))
    request = await fake.wait_for(1)
    await asyncio.sleep(0.05)
    task.cancel()
    async with asyncio.timeout(10):
        await request.disconnected.wait()


async def test_a_model_deleted_during_the_call_is_not_installed(
    fake: FakeOllama, near: OllamaClient
) -> None:
    fake.reply(error(404, 'model "llama3.1:70b" not found, try pulling it first'))
    with pytest.raises(ModelNotFound):
        await near.chat(ChatRequest(messages=HI), "llama3.1:70b")


async def test_a_server_that_speaks_no_http_is_called_that(
    fake: FakeOllama, near: OllamaClient
) -> None:
    async def reply(connection: Connection, request: Request) -> None:
        connection.send_raw(b"-ERR unknown command\r\n")

    fake.reply(reply)
    with pytest.raises(OllamaError, match="does not speak HTTP"):
        await near.chat(ChatRequest(messages=HI), "llama3.1:70b")
