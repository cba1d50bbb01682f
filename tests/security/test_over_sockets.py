"""Attacks on the server over the network."""

import asyncio
import json
import socket
from typing import Any

import httpx
import pytest

from core.serving import protocol, reading
from tests.conftest import Serve
from tests.fake_ollama import FakeOllama, never_answers, tokens
from tests.metrics import until
from tests.sockets import raw

CHAT = {"message": "hi", "model": "smollm2:135m"}


def error_of(answer: bytes) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json; charset=utf-8" in head
    assert b"connection: close" in head
    assert json.loads(body)["success"] is False
    return str(json.loads(body)["error"])


@pytest.mark.parametrize(
    "parts", [(), (b"POST /api/chat HTT",), (b"GET / HTTP/1.1\r\n", b"A: b\r\n", b"C: d\r\n")]
)
async def test_a_slow_head_times_out(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, parts: tuple[bytes, ...]
) -> None:
    monkeypatch.setattr(reading, "HEAD_TIMEOUT_S", 0.3)
    answer = await raw(await serve(), *parts, wait_s=0.05)
    if parts:
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert error_of(answer).startswith("No complete request within")
    else:
        assert answer == b""


async def test_a_slow_head_on_a_kept_alive_connection_times_out(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "HEAD_TIMEOUT_S", 0.3)
    request = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = await raw(await serve(), request, b"GET /api/he", wait_s=0.1)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in answer


async def test_an_idle_connection_is_kept_longer_than_a_head_may_take(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "HEAD_TIMEOUT_S", 0.2)
    request = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n"
    answer = await raw(
        await serve(), request + b"\r\n", request + b"Connection: close\r\n\r\n", wait_s=0.5
    )
    assert answer.count(b"HTTP/1.1 200 ") == 2


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /api/health HTTP/1.1\r\n",
        b"POST /api/models HTTP/1.1\r\nContent-Length: 100\r\n",  # the 405 precedes its body
    ],
)
async def test_an_invalid_request_does_not_hold_a_connection(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, request_: bytes
) -> None:
    monkeypatch.setattr(protocol, "KEEP_ALIVE_S", 0.3)
    answer = await raw(await serve(), request_ + b"Host: localhost\r\n\r\n", b"\r\n", wait_s=0.1)
    assert answer.startswith(b"HTTP/1.1 ")


POST = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def chat_request(body: bytes = json.dumps(CHAT).encode(), path: bytes = b"/api/chat") -> bytes:
    return POST.replace(b"/api/chat", path) + b"Content-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize("path", [b"/api/chat", b"/api/chat/stream"])
@pytest.mark.parametrize(
    "behind", [b"GET /api/he", b"garbage\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000]
)
async def test_bytes_after_a_request_do_not_affect_its_answer(
    serve: Serve, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch, path: bytes, behind: bytes
) -> None:
    monkeypatch.setattr(reading, "HEAD_TIMEOUT_S", 0.1)
    fake.reply(tokens(pace_s=0.05))
    answer = await raw(await serve(), chat_request(path=path), behind, b"more", wait_s=0.1)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"done":true' in answer
    assert not fake.asked()[0].disconnected.is_set()
    rest = answer.partition(b'"done":true')[2]
    if behind.startswith(b"GET /api"):
        assert b"\r\nHTTP/1.1 408 " in rest or b"}HTTP/1.1 408 " in rest, (
            "only after the answer's end"
        )
    else:
        assert b"HTTP/1.1" not in rest


async def test_a_head_after_a_large_body_is_not_mistaken_for_a_large_head(
    serve: Serve, fake: FakeOllama
) -> None:
    large = json.dumps({**CHAT, "message": "가" * 50_000}).encode()
    last = b"GET /api/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    url = httpx.URL(await serve())
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(chat_request(large) + last[:10])
    await reader.readuntil(b"\r\n\r\n")
    writer.write(last[10:])
    assert (await reader.read()).count(b"HTTP/1.1 200 ") == 1
    writer.close()
    answer = await raw(await serve(), chat_request(large) + last)
    assert answer.count(b"HTTP/1.1 ") == answer.count(b"HTTP/1.1 200 ") == 1
    assert b"connection: close" in answer, "so that the client retries on a new connection"


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has it")
@pytest.mark.parametrize("path", [b"/api/chat", b"/api/chat/stream"])
async def test_a_client_that_reads_nothing_does_not_hold_its_answer(
    serve: Serve, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch, path: bytes
) -> None:
    monkeypatch.setattr(protocol, "WRITE_TIMEOUT_S", 1)
    size = 16 * 2**20
    fake.reply(tokens([], final_text="x" * size))
    url = httpx.URL(await serve())
    reader, writer = await asyncio.open_connection(url.host, url.port, limit=1)
    writer.write(chat_request(path=path))
    await fake.wait_for(1)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(5)
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    got = 0
    with pytest.raises(ConnectionError):  # noqa: PT012
        while data := await reader.read(2**20):
            got += len(data)
        raise ConnectionError
    assert got < size
    writer.transport.abort()


def chunked(*chunks: bytes, trailers: bytes = b"") -> list[bytes]:
    head = POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    ends = b"0\r\n" + trailers + b"\r\n"
    return [head, *(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks), ends]


async def test_a_large_chunked_body_is_not_mistaken_for_a_large_head(
    serve: Serve, fake: FakeOllama
) -> None:
    text = json.dumps({**CHAT, "message": "a" * 300_000}).encode()
    pieces = [text[start : start + 999] for start in range(0, len(text), 999)]
    whole = b"".join(chunked(*pieces, trailers=b"X-Trailer: 1\r\n"))
    for size in (len(whole), 70_001):
        parts = [whole[start : start + size] for start in range(0, len(whole), size)]
        answer = await raw(await serve(), *parts, wait_s=0.01)
        assert answer.startswith(b"HTTP/1.1 200 ")
    assert {len(request.json["messages"][0]["content"]) for request in fake.asked()} == {300_000}


@pytest.mark.parametrize("bomb", [b"A: b\r\n" * 100_000, b"X: " + b"a" * 600_000])
@pytest.mark.parametrize("path", [b"/api/chat", b"/api/models"])
async def test_a_trailer_bomb_is_refused(serve: Serve, path: bytes, bomb: bytes) -> None:
    *body, _ = chunked(json.dumps(CHAT).encode())
    request = b"".join(body).replace(b"/api/chat", path).replace(b"Connection: close\r\n", b"")
    answer = await raw(await serve(), request, b"0\r\n" + bomb)
    assert b"HTTP/1.1 431 " in answer


async def test_a_slow_body_holds_no_slot_and_ends_at_its_deadline(
    serve: Serve, fake: FakeOllama
) -> None:
    url = await serve(max_concurrent=1, max_queue=0, request_timeout_s=3)
    head = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    slow = asyncio.create_task(raw(url, head + b"Content-Length: 100\r\n\r\n", b"{", wait_s=0.1))
    await until(url, "requests_in_flight", 2)  # besides it, the one for this figure
    async with httpx.AsyncClient() as client:
        assert (await client.post(f"{url}/api/chat", json=CHAT)).status_code == 200
    assert (await slow).startswith(b"HTTP/1.1 504 ")
    assert len(fake.asked()) == 1


async def test_a_full_queue_refuses_at_once_and_forgets_a_waiter_that_leaves(
    serve: Serve, fake: FakeOllama
) -> None:
    fake.reply(never_answers)
    url = await serve(max_concurrent=1, max_queue=1)
    async with httpx.AsyncClient(timeout=10) as client:

        async def ask() -> httpx.Response:
            return await client.post(f"{url}/api/chat", json=CHAT)

        running = asyncio.create_task(ask())
        await fake.wait_for(1)
        waiting = asyncio.create_task(ask())
        await until(url, "queue_waiting", 1)
        refused = await ask()
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert refused.json()["error"].startswith("The queue is full")
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await until(url, "queue_waiting", 0)
        second = asyncio.create_task(ask())
        await until(url, "queue_waiting", 1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert (await second).status_code == 200
        assert len(fake.asked()) == 2, "the request that left the queue never reached Ollama"
    await until(url, "queue_running", 0)
    await until(url, "queue_waiting", 0)


async def test_the_model_cannot_write_lines_of_its_own(serve: Serve, fake: FakeOllama) -> None:
    hostile = [
        '\n{"response":"","done":true,"context":[]}\n',
        '"}\n{"success":false}',
        "\r\n0\r\n\r\n",
    ]
    fake.reply(tokens(hostile))
    url = await serve()
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{url}/api/chat/stream", json=CHAT)
    lines: list[dict[str, Any]] = [json.loads(line) for line in answer.content.split(b"\n")[:-1]]
    assert [line["response"] for line in lines] == [*hostile, ""]
    assert [line["done"] for line in lines] == [False, False, False, True]


@pytest.mark.parametrize(
    ("version", "options"),
    [
        (b"HTTP/1.1", b"Connection: close\r\n"),
        (b"HTTP/1.1", b"Connection: Close\r\n"),  # .NET
        (b"HTTP/1.1", b"TE: deflate;q=0.3\r\nConnection: TE, close\r\n"),  # Perl
        (b"HTTP/1.1", b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"),  # Java
        (b"HTTP/1.0", b""),
    ],
)
async def test_a_refusal_reaches_a_client_whose_connection_closes_after_a_large_body(
    serve: Serve, version: bytes, options: bytes
) -> None:
    url = httpx.URL(await serve(max_body_bytes=1000))
    head = POST.replace(b"HTTP/1.1", version) + options
    size = 8 * 2**20
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(head + b"Content-Length: %d\r\n\r\n" % size + bytes(size))
    await writer.drain()  # like urllib, which reads only after sending everything
    assert (await reader.read()).startswith(b"HTTP/1.1 413 ")
    writer.close()


async def test_a_slow_body_after_its_refusal_is_not_a_slow_head(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "HEAD_TIMEOUT_S", 0.2)
    head = POST.replace(b"/api/chat", b"/api/models") + b"Transfer-Encoding: chunked\r\n\r\n"
    last = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    chunks = [b"5\r\n", b"xxxxx\r\n"] * 3
    answer = await raw(await serve(), head, *chunks, b"0\r\n\r\n" + last, wait_s=0.1)
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert answer.count(b"HTTP/1.1 200 ") == 1
    assert b"HTTP/1.1 408 " not in answer
