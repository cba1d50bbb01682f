"""What the protocol adds to uvicorn's: half-closed clients, late bodies, idle times, a log."""

import asyncio
import json
import logging
import socket
import time
from collections.abc import Callable
from contextlib import suppress

import httpx
import pytest

from core.context import Record
from core.observe import logs
from core.ollama import pool
from core.serving import half_closed, protocol, reading
from core.settings.networks import Networks
from tests.conftest import Serve
from tests.fake_ollama import (
    Connection,
    FakeOllama,
    Request,
    never_answers,
    said,
    stalls_after,
    tokens,
)
from tests.processes import bundle, fake_ollama
from tests.sockets import raw

GET = b"GET /api/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEALTH = b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
MODEL = "smollm2:135m"
BODY = json.dumps({"message": "hi", "model": MODEL}).encode()


def chat(path: str = "/api/chat", version: str = "1.1") -> bytes:
    head = f"POST {path} HTTP/{version}\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    """Collect what the protocol logs."""
    records: list[Record] = []
    monkeypatch.setattr(logs, "log_requests", records.append)
    return records


# A client that has sent everything may close its side.


async def half_closing(url: str, request: bytes) -> bytes:
    parsed = httpx.URL(url)
    reader, writer = await asyncio.open_connection(parsed.host, parsed.port)
    writer.write(request)
    writer.write_eof()
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize("path", ["/api/chat", "/api/chat/stream"])
@pytest.mark.parametrize("pace_s", [0, 0.2])
async def test_a_client_that_half_closes_gets_its_whole_answer(
    serve: Serve, fake: FakeOllama, path: str, pace_s: float
) -> None:
    fake.reply(tokens(["a", "b", "c"], pace_s=pace_s))
    answer = await half_closing(await serve(), chat(path))
    answer = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in head
    assert b'"done":true' in body
    if path.endswith("stream"):
        assert body.endswith(b"0\r\n\r\n")


async def test_a_fast_answer_needs_no_probe(serve: Serve) -> None:
    assert (await half_closing(await serve(), GET)).startswith(b"HTTP/1.1 200 ")


async def test_a_probe_within_a_stream_means_nothing(serve: Serve, fake: FakeOllama) -> None:
    """The client closes its side after the first token, so a chunk's size gets a leading zero."""
    fake.reply(tokens(["a", "b"], pace_s=0.3))
    url = httpx.URL(await serve())
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(chat("/api/chat/stream"))
    await reader.readuntil(b"\r\n\r\n")
    sizes, lines = [], []
    while size := await reader.readline():
        sizes.append(size)
        lines.append(await reader.readexactly(int(size, 16)))
        await reader.readexactly(2)
        if len(sizes) == 1:
            writer.write_eof()
    whole = b"".join(lines).splitlines()
    assert [json.loads(line)["response"] for line in whole] == ["a", "b", ""]
    assert any(size.startswith(b"0") for size in sizes[:-1])
    writer.close()


@pytest.mark.parametrize("path", ["/api/chat", "/api/chat/stream"])
def test_with_uvloop_it_is_the_same(path: str) -> None:
    with fake_ollama("--pace", "0.1") as ollama, bundle(ollama) as url:
        answer = asyncio.run(half_closing(url, chat(path)))
        assert b"HTTP/1.1 200 " in answer
        assert b'"done":true' in answer
        with httpx.Client(trust_env=False) as client:

            def running() -> int:
                return int(client.get(f"{url}/api/stats").json()["queue"]["running"])

            parsed = httpx.URL(url)
            with socket.create_connection((parsed.host, parsed.port or 0)) as sock:
                sock.sendall(chat(path))
                until(lambda: running() == 1)
            until(lambda: running() == 0)


def until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_http_1_0_ends_with_its_connection(serve: Serve, fake: FakeOllama) -> None:
    fake.reply(never_answers)
    url = httpx.URL(await serve())
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(chat(version="1.0"))
    request = await fake.wait_for(1)
    writer.write_eof()
    async with asyncio.timeout(20):
        await request.disconnected.wait()
    assert await reader.read() == b""
    writer.close()


async def test_a_half_closed_client_that_leaves_later_is_noticed(
    serve: Serve, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(half_closed, "_WAITS_S", (0.01, 0.05))
    fake.reply(stalls_after(1))
    url = httpx.URL(await serve())
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(chat("/api/chat/stream"))
    writer.write_eof()
    request = await fake.wait_for(1)
    await reader.readuntil(b'"done":false}\n')
    assert not request.disconnected.is_set()
    writer.transport.abort()
    async with asyncio.timeout(20):
        await request.disconnected.wait()


# A body that nobody asked for


@pytest.mark.parametrize("path", ["/api/health", "/", "/api/nothing"])
async def test_an_endless_body_is_cut(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(reading, "MAX_LATE_BODY_BYTES", 2**20)
    url = httpx.URL(await serve())
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    sent = 0
    with pytest.raises(ConnectionError):  # noqa: PT012
        while sent < 100 * 2**20:
            writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
            await writer.drain()
            sent += 0x10000
    assert sent < 20 * 2**20, "what the kernel holds, too, counts as sent"
    writer.close()


async def test_a_body_that_trickles_behind_its_answer_is_cut(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LATE_BODY_S", 0.3)
    url = httpx.URL(await serve())
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(b"GET /api/health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")

    async def trickle() -> None:
        while True:
            writer.write(b"1\r\nx\r\n")
            await asyncio.sleep(0.02)

    task = asyncio.create_task(trickle())
    async with asyncio.timeout(20):
        with suppress(ConnectionResetError):  # a last byte may meet the closed socket
            await reader.read()
    task.cancel()
    writer.close()


async def test_a_body_that_ends_behind_its_answer_leaves_the_connection_open(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LATE_BODY_S", 0.2)
    head = b"POST /api/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n"
    url = httpx.URL(await serve())
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(head)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 405 ")
    writer.write(b"hello")
    await asyncio.sleep(0.4)
    writer.write(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert b"HTTP/1.1 200 " in await reader.read()
    writer.close()


# A request that takes long: its connection has no parser until the client sends something again


async def test_a_connection_serves_another_request_after_a_slow_one(
    serve: Serve, fake: FakeOllama
) -> None:
    fake.reply(tokens(["a"] * 3, pace_s=0.1), tokens(["b"] * 3, pace_s=0.1))
    url = httpx.URL(await serve())
    reader, writer = await asyncio.open_connection(url.host, url.port)
    for token in ("a", "b"):
        writer.write(chat("/api/chat/stream"))
        answer = await reader.readuntil(b"0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.count(b'"response":"%b"' % token.encode()) == 3
    writer.close()


async def test_bytes_during_a_slow_answer_do_not_harm_it(serve: Serve, fake: FakeOllama) -> None:
    fake.reply(tokens(["a"] * 3, pace_s=0.2))
    answer = await raw(await serve(), chat("/api/chat/stream"), b"\r\n", GET[:9], GET, wait_s=0.1)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b'"done":true' in answer


async def test_a_client_may_leave_whose_previous_answer_has_just_been_cleared_up(
    serve: Serve, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "END_TIMEOUT_S", 0.3)

    async def lingers(connection: Connection, request: Request) -> None:
        connection.send_head()
        connection.send_line({"model": MODEL, **said(""), "done": True, "done_reason": "stop"})
        await connection.hang()

    fake.reply(lingers, never_answers)
    url = httpx.URL(await serve())
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(chat("/api/chat/stream"))
    await reader.readuntil(b"0\r\n\r\n")
    writer.write(chat())
    second = await fake.wait_for(2)
    await fake.asked()[0].disconnected.wait()
    await asyncio.sleep(0.05)  # so that the first request has ended
    writer.close()
    async with asyncio.timeout(20):
        await second.disconnected.wait()


# Idle connections


@pytest.mark.parametrize("request_", [b"", HEALTH, GET, b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"])
async def test_a_strangers_idle_connection_lives_briefly(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, request_: bytes
) -> None:
    assert protocol.STRANGER_KEEP_ALIVE_S == reading.HEAD_TIMEOUT_S == 10
    monkeypatch.setattr(protocol, "STRANGER_KEEP_ALIVE_S", 0.2)
    monkeypatch.setattr(reading, "HEAD_TIMEOUT_S", 0.2)
    answer = await raw(await serve(anonymous_clients=Networks("none")), request_)
    assert answer.count(b"HTTP/1.1 ") == bool(request_)


async def test_a_connection_that_was_once_let_in_stays(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "STRANGER_KEEP_ALIVE_S", 0.2)
    last = HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    wrong = GET.replace(b"\r\n\r\n", b"\r\nX-API-Key: owa_x\r\n\r\n")
    answer = await raw(await serve(), GET, wrong, last, wait_s=0.5)
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"401", b"200"]


# The log


@pytest.mark.parametrize(
    ("request_", "status", "error"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", 400, "InvalidHTTP"),
        (b"GET / HTTP/9.9\r\n\r\n", 400, "InvalidHTTP"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000, 431, "HeadTooLarge"),
        (b"GET / HT", 408, "HeadTimeout"),
        (b"POST /api/chat HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501,
         "CodingNotSupported"),
        (chat() + GET, 400, "BadRequest"),
    ],
)  # fmt: skip
async def test_what_is_refused_is_logged_with_its_address(
    serve: Serve,
    fake: FakeOllama,
    monkeypatch: pytest.MonkeyPatch,
    logged: list[Record],
    request_: bytes,
    status: int,
    error: str,
) -> None:
    monkeypatch.setattr(reading, "HEAD_TIMEOUT_S", 0.2)
    fake.reply(tokens(pace_s=0.05))
    await raw(await serve(), request_)
    (record,) = [record for record in logged if record.status == status]
    assert record.error
    assert (record.address, record.error.__name__) == ("127.0.0.1", error)


@pytest.mark.parametrize(
    "rest",
    [b" HTTP/9.9\r\n\r\n", b" HTTP/1.1\r\nX: " + b"x" * 70_000,
     b" HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", b" HTTP/1.1\r\nHost: a"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (b"/api/chat", {"success", "error"}),
        (b"/v1/chat/completions", {"message", "type", "param", "code"}),
        (b"/v1/messages?beta=true", {"type", "message"}),
    ],
)
async def test_what_is_refused_before_its_handler_has_the_shape_of_its_api(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, path: bytes, fields: set[str], rest: bytes
) -> None:
    monkeypatch.setattr(reading, "HEAD_TIMEOUT_S", 0.2)
    answer = await raw(await serve(), b"POST " + path + rest)
    body = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert set(body if path.startswith(b"/api") else body["error"]) == fields


async def test_a_trusted_proxy_is_not_logged_as_an_attacker(
    serve: Serve, logged: list[Record]
) -> None:
    await raw(await serve(trusted_proxies=Networks("127.0.0.1")), b"nonsense\r\n\r\n")
    assert [(record.address, record.status) for record in logged] == [("", 400)]


async def test_an_offered_upgrade_is_declined_without_advice_for_developers(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    offer = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"
    url = httpx.URL(await serve())
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(GET.replace(b"\r\n\r\n", b"\r\n" + offer))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    assert "pip install" not in caplog.text
    assert "upgrade" not in caplog.text.lower()
    writer.close()


OFFER = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
)
"""What Java's HttpClient and `curl --http2` send with every request to an http: address."""
FRAMED = {
    "length": b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY),
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n4\r\n%b\r\n%x\r\n%b\r\n0\r\nX-Trailer: a\r\n\r\n"
    % (BODY[:4], len(BODY) - 4, BODY[4:]),
}
OFFERING = (
    b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + OFFER
)


@pytest.mark.parametrize("framed", FRAMED)
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_a_body_that_comes_with_an_offered_upgrade_is_read(
    serve: Serve, fake: FakeOllama, framed: str, size: int
) -> None:
    request = OFFERING + FRAMED[framed]
    pieces = [request[at : at + size] for at in range(0, len(request), size)]
    answer = await raw(await serve(), *pieces)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer
    assert fake.asked()[0].json["messages"] == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("next_", [GET, chat(), OFFERING + FRAMED["length"]])
async def test_what_follows_an_offered_upgrade_is_not_part_of_its_body(
    serve: Serve, fake: FakeOllama, next_: bytes
) -> None:
    answer = await raw(await serve(), OFFERING + FRAMED["length"] + next_)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 ") == len(fake.asked()) == 1


async def test_a_request_behind_an_offered_upgrade_is_not_left_waiting(serve: Serve) -> None:
    offering = HEALTH.replace(b"\r\n\r\n", b"\r\n" + OFFER + b"\r\n")
    answer = await raw(await serve(), offering + GET)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer
    assert answer.count(b"HTTP/1.1 ") == 1
