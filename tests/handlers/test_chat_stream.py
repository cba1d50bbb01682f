import asyncio
import json
from typing import Any
from unittest.mock import ANY

import httpx
import pytest
from starlette.datastructures import Headers

from core.chat.conversation import decoded
from core.chat.stream import preferred_heartbeat_s
from core.serving import exchange
from handlers import chat_stream
from tests.conftest import Connect, Serve
from tests.fake_ollama import (
    TOKENS,
    Connection,
    FakeOllama,
    Lockstep,
    Reply,
    Request,
    after,
    closes_before_head,
    error,
    never_answers,
    page,
    recorded,
    said,
    stalls_after,
    tokens,
    whole,
)
from tests.recorded import STREAMS, Recorded

NDJSON = "application/x-ndjson; charset=utf-8"


async def post(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post(
        "/api/chat/stream", json={"model": "smollm2:135m", "message": "hi", **body}
    )


def post_bytes(path: str, body: bytes = b'{"message":"hi"}') -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def lines_of(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == NDJSON
    assert answer.text.endswith("\n")
    return [json.loads(line) for line in answer.content.split(b"\n")[:-1]]


@pytest.mark.parametrize("path", ["/api/chat/stream", "/api/chat/stream/"])
async def test_each_line_has_one_token(connect: Connect, fake: FakeOllama, path: str) -> None:
    answer = await connect(chat_stream).post(path, json={"message": "안녕하세요!", "stream": False})
    lines = lines_of(answer)
    assert lines[:-1] == [{"response": token, "done": False} for token in TOKENS]
    assert lines[-1] == {
        "response": "",
        "done": True,
        "context": ANY,
        "done_reason": "stop",
        "prompt_eval_count": 16,
        "eval_count": 8,
        "total_duration": 331542986,
    }
    assert answer.content.startswith(
        b'{"response":"The","done":false}\n{"response":" capital","done"'
    )
    assert fake.asked()[0].json["stream"] is True


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("piece", [0, 1, 4096])
@pytest.mark.parametrize("connect", ["bundle"], indirect=True)
async def test_every_recorded_stream_is_relayed_whole(
    connect: Connect, fake: FakeOllama, name: str, piece: int
) -> None:
    recording = Recorded(name, chat=True)
    fake.reply(recorded(name, piece))
    lines = lines_of(await post(connect(chat_stream)))
    text = "".join(line["message"]["content"] for line in recording.lines if "message" in line)
    assert "".join(line.get("response", "") for line in lines) == text
    last = recording.lines[-1]
    if last.get("done"):
        assert decoded(lines[-1]["context"], 2**20)[-1].content == text
        assert all(line["done"] is False for line in lines[:-1])
    else:
        assert list(lines[-1]) == ["success", "error", "done"]
        assert lines[-1]["success"] is False
        assert lines[-1]["done"] is True


async def test_text_on_the_last_line_goes_out_first(connect: Connect, fake: FakeOllama) -> None:
    fake.reply(tokens(["a"], final_text="b"))
    lines = lines_of(await post(connect(chat_stream)))
    assert [line["response"] for line in lines] == ["a", "b", ""]
    assert decoded(lines[-1]["context"], 2**20)[-1].content == "ab"


async def test_thinking_comes_with_the_last_line(connect: Connect, fake: FakeOllama) -> None:
    fake.reply(tokens(["4"], thinking=["2", "+2"]))
    lines = lines_of(await post(connect(chat_stream), think=True))
    assert [line["response"] for line in lines] == ["", "", "4", ""]
    assert lines[-1]["thinking"] == "2+2"
    assert not any("thinking" in line for line in lines[:-1])


@pytest.mark.parametrize(
    ("reply", "status", "start"),
    [
        (
            error(404, "model 'smollm2:135m' not found"),
            404,
            "Model 'smollm2:135m' is not installed",
        ),
        (recorded("err_model_missing_404"), 404, "Model 'smollm2:135m' is not installed"),
        (recorded("overlong_truncate_false_stream"), 400, "Ollama rejected this request"),
        (
            recorded("runner_killed_before_first_token"),
            500,
            "Ollama connection error: model runner",
        ),
        (recorded("concurrency_cold_503"), 503, "Ollama is busy"),
        (
            recorded("err_format_bad_stream"),
            400,
            "Ollama rejected this request: invalid format",
        ),
        (closes_before_head, 500, "Ollama connection error: the connection to Ollama broke"),
        (page(502), 500, "Ollama connection error: it failed"),
        (page(200), 500, "Ollama connection error: the answer is not Ollama's"),
        (page(200, b""), 500, "Ollama connection error: the answer ended"),
        (after(0, lambda c: c.send_line({"error": "boom"})), 500, "Ollama connection error: boom"),
        (after(0, Connection.send_end), 500, "Ollama connection error: the answer ended"),
        (
            after(0, Connection.reset),
            500,
            "Ollama connection error: the connection to Ollama broke",
        ),
    ],
)
async def test_a_failure_before_the_first_token_has_its_real_status(
    connect: Connect, fake: FakeOllama, reply: Reply, status: int, start: str
) -> None:
    fake.reply(reply)
    answer = await post(connect(chat_stream))
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.json()["success"] is False
    assert answer.json()["error"].startswith(start)
    assert ("retry-after" in answer.headers) == (status == 503)


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (after(3, Connection.send_end), "the answer ended before it was complete"),
        (after(3, Connection.reset), "the connection to Ollama broke"),
        (after(3, lambda c: c.transport.close()), "the connection to Ollama broke"),
        (after(3, lambda c: c.send_line({"error": "boom"})), "boom"),
        (after(3, lambda c: c.send_chunk(b'{"message":')), None),
        (after(3, lambda c: c.send_raw(b"zz\r\n")), "the connection to Ollama broke"),
        (after(3, lambda c: c.send_chunk(b"<html>\n")), "the answer is not Ollama's"),
    ],
)
async def test_a_failure_after_the_first_token_is_the_last_line(
    connect: Connect, fake: FakeOllama, reply: Reply, text: str | None
) -> None:
    fake.reply(reply)
    lines = lines_of(await post(connect(chat_stream, request_timeout_s=1 if text is None else 30)))
    assert [line["response"] for line in lines[:-1]] == [" 0", " 1", " 2"]
    assert list(lines[-1]) == ["success", "error", "done"]
    start = "Request timeout" if text is None else f"Ollama connection error: {text}"
    assert lines[-1]["error"].startswith(start)
    assert (lines[-1]["success"], lines[-1]["done"]) == (False, True)


async def test_a_timeout_before_the_first_token_is_a_504(
    connect: Connect, fake: FakeOllama
) -> None:
    fake.reply(never_answers)
    answer = await post(connect(chat_stream, request_timeout_s=0.2))
    assert answer.status_code == 504
    assert answer.json()["error"].startswith("Request timeout")


async def test_a_timeout_after_the_first_token_is_the_last_line(
    connect: Connect, fake: FakeOllama
) -> None:
    fake.reply(stalls_after(2))
    lines = lines_of(await post(connect(chat_stream, request_timeout_s=0.3)))
    assert [line.get("response") for line in lines] == [" 0", " 1", None]
    assert lines[-1]["error"].startswith("Request timeout: no complete answer within 0.3 seconds")
    async with asyncio.timeout(1):
        await fake.asked()[0].disconnected.wait()


async def test_heartbeats_fill_the_silence(connect: Connect, fake: FakeOllama) -> None:
    fake.reply(tokens(["a", "b"], pace_s=0.25))
    lines = lines_of(await post(connect(chat_stream, stream_heartbeat_s=0.1)))
    assert "".join(line["response"] for line in lines) == "ab"
    assert [line["response"] for line in lines].count("") >= 3
    assert lines[0] == {"response": "", "done": False}
    assert lines[-1]["context"]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("heartbeat=1", 1),
        ('respond-async, Heartbeat = "2"', 2),
        ("heartbeat=0", 0),
        ("heartbeat=61", 0),
        ("heartbeat=1.5", 0),
        ("heartbeat=-1", 0),
        ("heartbeat", 0),
        ("heartbeats=1", 0),
    ],
)
def test_a_heartbeat_is_preferred_in_whole_seconds_within_bounds(header: str, seconds: int) -> None:
    assert preferred_heartbeat_s(Headers({"prefer": header})) == seconds


async def test_a_client_may_prefer_heartbeats(connect: Connect, fake: FakeOllama) -> None:
    fake.reply(tokens(["a", "b"], pace_s=1.2))
    client = connect(chat_stream, stream_heartbeat_s=0.1)
    client.headers["prefer"] = "heartbeat=1"
    answer = await post(client)
    assert answer.headers["preference-applied"] == "heartbeat=1"
    lines = lines_of(answer)
    beat = {"response": "", "done": False, "heartbeat": True}
    assert lines[:2] == [beat, {"response": "a", "done": False}]
    assert lines.count(beat) == 2
    del client.headers["prefer"]
    assert "preference-applied" not in (await post(client)).headers


async def test_a_failure_behind_preferred_heartbeats_keeps_its_status(
    connect: Connect, fake: FakeOllama
) -> None:
    async def late(connection: Connection, request: object) -> None:
        await asyncio.sleep(1.2)
        connection.send_json(404, {"error": "model 'llama3.1:70b' not found"})

    client = connect(chat_stream)
    fake.reply(late)
    assert (await post(client)).status_code == 404
    client.headers["prefer"] = "heartbeat=1"
    fake.reply(error(503, "busy"))
    assert (await post(client)).status_code == 503
    fake.reply(late)
    answer = await post(client)
    assert answer.status_code == 200
    last = lines_of(answer)[-1]
    assert last.pop("error").startswith("Model 'smollm2:135m' is not installed")
    assert last == {"success": False, "done": True, "status": 404}


async def test_nothing_follows_the_last_line_even_if_the_body_continues(
    serve: Serve, fake: FakeOllama, caplog: pytest.LogCaptureFixture
) -> None:
    async def stays(connection: Connection, request: Request) -> None:
        connection.send_head()
        connection.send_line({**said("4"), "done": True})
        await asyncio.sleep(0.3)
        connection.send_end()

    fake.reply(stays)
    url = await serve(stream_heartbeat_s=0.05)
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{url}/api/chat/stream", json={"message": "hi"})
        assert [line["response"] for line in lines_of(answer) if line["response"]] == ["4"]
        assert [line["done"] for line in lines_of(answer)].index(True) == len(lines_of(answer)) - 1
        await asyncio.sleep(0.5)
        stats = (await client.get(f"{url}/api/stats")).json()
    assert [model["count"] for model in stats["models"]] == [1]
    assert "Traceback" not in caplog.text


async def test_after_a_heartbeat_a_failure_is_the_last_line(
    connect: Connect, fake: FakeOllama
) -> None:
    async def late(connection: Connection, request: object) -> None:
        await asyncio.sleep(0.25)
        connection.send_json(500, {"error": "boom"})

    fake.reply(late)
    lines = lines_of(await post(connect(chat_stream, stream_heartbeat_s=0.1)))
    assert lines[0] == {"response": "", "done": False}
    assert lines[-1]["error"] == "Ollama connection error: boom"
    fake.reply(error(503, "busy"))
    assert (await post(connect(chat_stream, stream_heartbeat_s=30))).status_code == 503


async def test_the_connection_is_kept_for_the_next_stream(
    connect: Connect, fake: FakeOllama
) -> None:
    client = connect(chat_stream)
    for _ in range(3):
        await post(client)
    assert fake.connections == 1


async def test_lines_arrive_whole_and_as_they_are_written(serve: Serve, fake: FakeOllama) -> None:
    lockstep = Lockstep([f"토큰{number} " for number in range(8)])
    fake.reply(lockstep)
    url = await serve()
    lines = 0
    async with (
        httpx.AsyncClient() as client,
        client.stream("POST", f"{url}/api/chat/stream", json={"message": "hi"}) as answer,
    ):
        assert answer.headers["transfer-encoding"] == "chunked"
        async for chunk in answer.aiter_raw():
            assert chunk.endswith(b"\n"), "a line is never split across two writes"
            lines += chunk.count(b"\n")
            lockstep.next()
    assert lines == 9


async def test_a_line_that_fits_into_a_tls_record_is_never_split(
    serve: Serve, fake: FakeOllama
) -> None:
    words = ["짧은 ", "긴 " * 3000, "x" * 40_000, *(f"{number} " for number in range(3000))] * 2
    lines = [{**said(word), "done": False} for word in words] + [{"done": True}]
    body = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    fake.reply(whole(200, "application/x-ndjson", body))
    url = httpx.URL(await serve())
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(post_bytes("/api/chat/stream"))
    await reader.readuntil(b"\r\n\r\n")
    chunks = []
    while size := int(await reader.readline(), 16):
        chunks.append(await reader.readexactly(size))
        await reader.readexactly(2)
    writer.close()
    assert all(chunk.endswith(b"\n") for chunk in chunks)
    got = [json.loads(line) for line in b"".join(chunks).split(b"\n")[:-1]]
    assert [line["response"] for line in got] == [*words, ""]
    frame = len(b"3fff\r\n\r\n")
    for chunk in chunks:
        assert len(chunk) + frame <= 16 * 1024 or chunk.count(b"\n") == 1
    assert len(chunks) < len(words) / 10, "lines that arrive together are sent together"


@pytest.mark.parametrize("path", ["/api/chat", "/api/chat/stream"])
async def test_a_disconnect_cancels_the_model_lookup(
    serve: Serve, fake: FakeOllama, path: str
) -> None:
    fake.reply(never_answers, path="/api/show")
    url = httpx.URL(await serve())
    _, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(post_bytes(path, b'{"message":"hi"}'))
    request = await fake.wait_for(1, "/api/show")
    await asyncio.sleep(0.1)
    writer.close()
    async with asyncio.timeout(10):
        await request.disconnected.wait()
    assert not fake.asked()


@pytest.mark.parametrize("path", ["/api/chat", "/api/chat/stream"])
async def test_a_disconnect_after_pipelined_requests_closes_the_upstream(
    serve: Serve, fake: FakeOllama, path: str
) -> None:
    fake.reply(never_answers)
    url = httpx.URL(await serve())
    _, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(post_bytes(path))
    request = await fake.wait_for(1)
    writer.write(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)
    await asyncio.sleep(0.1)
    assert not request.disconnected.is_set()
    writer.close()
    async with asyncio.timeout(10):
        await request.disconnected.wait()


@pytest.mark.parametrize("path", ["/api/chat", "/api/chat/stream"])
@pytest.mark.parametrize("reply", [never_answers, stalls_after(3)])
@pytest.mark.parametrize("heartbeat_s", [0, 0.05])
async def test_a_disconnect_closes_the_upstream(
    serve: Serve, fake: FakeOllama, path: str, reply: Reply, heartbeat_s: float
) -> None:
    fake.reply(reply)
    url = httpx.URL(await serve(stream_heartbeat_s=heartbeat_s))
    _, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(post_bytes(path))
    request = await fake.wait_for(1)
    await asyncio.sleep(0.1)
    assert not request.disconnected.is_set()
    writer.close()
    async with asyncio.timeout(10):
        await request.disconnected.wait()


async def test_a_client_that_reads_nothing_is_cut_off_in_time(
    serve: Serve, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "LAST_WORDS_S", 0.1)
    fake.reply(tokens(["x" * 100_000] * 200))
    url = httpx.URL(await serve(request_timeout_s=0.5))
    _, writer = await asyncio.open_connection(url.host, url.port, limit=1024)
    writer.write(post_bytes("/api/chat/stream"))
    await fake.wait_for(1)
    async with asyncio.timeout(20):
        while fake.open:
            await asyncio.sleep(0.01)
    writer.transport.abort()
    await asyncio.sleep(0.2)
