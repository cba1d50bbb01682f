"""A function, the relay, the tunnel, and Ollama at its end."""

import asyncio
import json

import httpx

from handlers import chat, chat_stream, health, models
from tests.conftest import Serve
from tests.deploy.tunnel.conftest import Function
from tests.deploy.tunnel.loopback import Relay, Tunnel
from tests.fake_ollama import FakeOllama, Lockstep, never_answers, tokens

HELLO = {"message": "안녕하세요!"}
KOREAN = ("안녕", "하세요", "!")


async def test_every_endpoint_works_as_a_function(
    function: Function, tunnel: Tunnel, fake: FakeOllama
) -> None:
    fake.check_host = True
    fake.default = tokens(KOREAN)
    answer = await function(health).get("/api/health")
    assert answer.json()["ollama_status"] == "connected"
    answer = await function(models).get("/api/models")
    assert answer.json()["models"] == fake.models
    answer = await function(chat).post("/api/chat", json=HELLO)
    assert answer.json()["response"] == "안녕하세요!"
    more = {**HELLO, "context": answer.json()["context"]}
    answer = await function(chat_stream).post("/api/chat/stream", json=more)
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["response"] for line in lines] == [*KOREAN, ""]
    assert [each["content"] for each in fake.asked()[-1].json["messages"]] == ["안녕하세요!"] * 3
    assert {request.path for request in fake.requests} == {
        "/api/version",
        "/api/tags",
        "/api/show",
        "/api/chat",
    }


async def test_a_stream_comes_token_by_token(
    relay: Relay, tunnel: Tunnel, fake: FakeOllama, serve: Serve
) -> None:
    lockstep = Lockstep(KOREAN)
    fake.reply(lockstep)
    url = await serve(**relay.settings)
    texts = []
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        client.stream("POST", f"{url}/api/chat/stream", json=HELLO) as answer,
    ):
        async for line in answer.aiter_lines():
            texts.append(json.loads(line)["response"])
            lockstep.next()
    assert texts == [*KOREAN, ""]


async def test_a_client_that_leaves_stops_the_model(
    relay: Relay, tunnel: Tunnel, fake: FakeOllama, serve: Serve
) -> None:
    fake.reply(tokens(["."] * 10_000, pace_s=0.01))
    url = await serve(**relay.settings)
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        client.stream("POST", f"{url}/api/chat/stream", json=HELLO) as answer,
    ):
        await anext(answer.aiter_lines())
    await asyncio.wait_for(fake.requests[-1].disconnected.wait(), 10)


async def test_a_function_out_of_time_stops_the_model(
    function: Function, tunnel: Tunnel, fake: FakeOllama
) -> None:
    fake.reply(never_answers)
    answer = await function(chat, timeout_s=1.5).post("/api/chat", json=HELLO)
    assert answer.status_code == 504
    assert answer.json()["error"].startswith("Request timeout")
    await asyncio.wait_for(fake.requests[-1].disconnected.wait(), 10)


async def test_the_largest_request_goes_through_and_into_no_file(
    function: Function, relay: Relay, tunnel: Tunnel, fake: FakeOllama
) -> None:
    images = ["A" * (4 * 2**20)] * 4
    fake.capabilities = ["completion", "vision"]
    answer = await function(chat).post("/api/chat", json={**HELLO, "images": images})
    assert answer.status_code == 200, answer.text
    assert fake.requests[-1].json["messages"][0]["images"] == images
    assert "buffered to a temporary file" not in (relay.folder / "error.log").read_text("utf-8")


async def test_a_real_model_answers_through_the_tunnel(
    function: Function, relay: Relay, engine_url: str
) -> None:
    port = httpx.URL(engine_url).port
    assert port
    asked = {
        "message": "What is the capital of France?",
        "options": {"temperature": 0, "num_predict": 40},
        "model": "smollm2:135m",
    }
    async with relay.tunnel(port):
        answer = await function(chat).post("/api/chat", json=asked)
        stream = await function(chat_stream).post("/api/chat/stream", json=asked)
    assert "Paris" in answer.json()["response"]
    lines = [json.loads(line) for line in stream.text.splitlines()]
    assert "".join(line["response"] for line in lines) == answer.json()["response"]
    assert lines[-1]["context"] == answer.json()["context"]
