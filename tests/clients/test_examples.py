"""Each example asks, streams, reports errors and sends a key."""

import asyncio
import json
from pathlib import Path

import pytest

from core.keys import editing as keys
from core.settings.networks import Networks
from tests.clients.conftest import Example
from tests.conftest import Serve
from tests.fake_ollama import Connection, FakeOllama, Reply, Request, after, tokens
from tests.raw_server import RawServer

HANGUL = ("안녕", "하세요", "! \u2028 👋", " 무엇을", " 도와드릴까요?")


class Relay(RawServer):
    """A relay in front of the API that forwards a stream in small pieces, or cuts it off."""

    def __init__(self, lines: int, piece: int) -> None:
        super().__init__()
        stream = [*({"response": word, "done": False} for word in HANGUL),
                  {"response": "", "done": True, "context": [1]}][:lines]  # fmt: skip
        body = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in stream)
        self.stream = body.replace('": ', '":').encode()
        self.piece = piece

    def reply_to(self, request: Request) -> Reply:
        return self._stream if request.path == "/api/chat/stream" else self._whole

    async def _whole(self, connection: Connection, request: Request) -> None:
        connection.send_json(200, {"success": True, "response": "4", "context": [1], "done": True})

    async def _stream(self, connection: Connection, request: Request) -> None:
        connection.send_head()
        for start in range(0, len(self.stream), self.piece):
            connection.send_chunk(self.stream[start : start + self.piece])
            await asyncio.sleep(0)
        connection.send_end()


async def breaks_streams(connection: Connection, request: Request) -> None:
    """Answer a plain chat, and stop in the middle of a stream."""
    reply = after(2, Connection.reset) if request.json["stream"] else tokens()
    await reply(connection, request)


async def test_a_real_model_answers(serve: Serve, engine_url: str, example: Example) -> None:
    url = await serve(ollama_base_url=engine_url, default_model="smollm2:135m", max_predict=20)
    ended = await example.run(url, "What is the capital of France?")
    assert (ended.status, ended.errors) == (0, "")
    assert ended.output.strip()


async def test_hangul_goes_there_and_back(serve: Serve, fake: FakeOllama, example: Example) -> None:
    fake.default = tokens(HANGUL, pace_s=0.01)
    ended = await example.run(await serve(), '"안녕하세요!"\n\\o/')
    assert (ended.status, ended.errors) == (0, "")
    asked = [request.json for request in fake.asked()]
    assert asked[0]["messages"][0]["content"] == '"안녕하세요!"\n\\o/'
    if example.name == "curl.sh":
        assert all(f'"response":"{word}"' in ended.output for word in HANGUL)
    else:
        assert ended.output == ("".join(HANGUL) + "\n") * len(asked)
    if len(asked) > 1 and example.name != "curl.sh":
        said = [message["content"] for message in asked[1]["messages"]]
        assert said[:2] == [asked[0]["messages"][0]["content"], "".join(HANGUL)]
        assert len(said) == 3


async def test_an_error_has_the_servers_own_words(serve: Serve, example: Example) -> None:
    ended = await example.run(await serve(), "?", key="owa_wrong")
    assert ended.status != 0
    assert "Invalid credentials" in ended.output + ended.errors


async def test_a_stream_that_fails_is_no_answer(
    serve: Serve, fake: FakeOllama, example: Example
) -> None:
    fake.default = breaks_streams
    ended = await example.run(await serve())
    assert ended.status != 0
    assert "Ollama connection error" in ended.output + ended.errors


@pytest.mark.parametrize("piece", [1, 7])
async def test_a_stream_in_pieces_loses_nothing(example: Example, piece: int) -> None:
    async with Relay(len(HANGUL) + 1, piece) as relay:
        ended = await example.run(relay.url)
    assert (ended.status, ended.errors) == (0, "")
    if example.name == "curl.sh":
        assert ended.output.encode().endswith(relay.stream)
    else:
        assert ended.output.endswith("".join(HANGUL) + "\n")


@pytest.mark.parametrize("lines", [0, 2])
async def test_a_stream_without_its_end_is_no_answer(example: Example, lines: int) -> None:
    async with Relay(lines, 64) as relay:
        ended = await example.run(relay.url)
    assert ended.status != 0
    assert "cut off" in ended.errors or "not complete" in ended.errors


async def test_a_server_that_is_not_there_is_an_error(example: Example) -> None:
    ended = await example.run("http://127.0.0.1:9")
    assert ended.status != 0
    assert ended.errors
    assert "Traceback" not in ended.errors


async def test_a_key_opens(serve: Serve, example: Example, tmp_path: Path) -> None:
    key = keys.create(tmp_path / "keys.json", "example")
    url = await serve(anonymous_clients=Networks("none"), api_keys_file=str(tmp_path / "keys.json"))
    ended = await example.run(url, key=key)
    assert (ended.status, ended.errors) == (0, "")
    ended = await example.run(url)
    assert ended.status != 0
    assert "Credentials are needed" in ended.output + ended.errors
