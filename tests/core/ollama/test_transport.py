import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from core.ollama import pool as module
from core.ollama.connection import ConnectionBroken
from core.ollama.pool import Pool, request_bytes
from core.ollama.transport import ForeignProtocol, HTTPTransport
from tests.fake_ollama import (
    Connection,
    FakeOllama,
    Request,
    after,
    closes_before_head,
    never_answers,
    recorded,
    resets_before_head,
    stalls_after,
)

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
async def pool(fake: FakeOllama) -> AsyncIterator[Pool]:
    url = httpx.URL(fake.url)
    pool = Pool(url.host, url.port or 80, connect_timeout_s=2)
    yield pool
    pool.close()


@pytest.fixture
def transport(pool: Pool) -> HTTPTransport:
    return HTTPTransport(pool)


def raw(*parts: bytes, close: bool = False) -> Callable[[Connection, Request], Awaitable[None]]:
    async def reply(connection: Connection, request: Request) -> None:
        for part in parts:
            connection.send_raw(part)
            await asyncio.sleep(0.01)
        if close:
            connection.transport.close()

    return reply


async def get(transport: HTTPTransport, path: str = "/x", method: str = "GET") -> tuple[int, bytes]:
    response = await transport.handle_async_request(httpx.Request(method, f"http://fake{path}"))
    try:
        return response.status_code, await response.aread()
    finally:
        await response.aclose()


@pytest.mark.parametrize(
    ("parts", "close"),
    [
        ((OK + b"Content-Length: 5\r\n\r\nhello",), False),
        ((OK + b"content-length: 5\r\n\r\nhe", b"llo"), False),
        (
            (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n", b"3\r\nl", b"lo\r\n0\r\n\r\n"),
            False,
        ),
        (
            (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n",),
            False,
        ),
        ((b"HTTP/1.1 100 Continue\r\n\r\n", OK + b"Content-Length: 5\r\n\r\nhello"), False),
        ((b"HTTP/1.0 200 OK\r\n\r\nhel", b"lo"), True),
        ((b"HT", b"TP/1.1 200 OK\r\nContent-Le", b"ngth: 5\r\n\r", b"\nhello"), False),
        (
            (
                OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: " + b"x" * 600_000,
                b"\r\n\r\n",
            ),
            False,
        ),
    ],
)
async def test_every_framing_of_a_body_is_read(
    fake: FakeOllama, transport: HTTPTransport, parts: tuple[bytes, ...], close: bool
) -> None:
    fake.reply(raw(*parts, close=close), path="/x")
    assert await get(transport) == (200, b"hello")


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (closes_before_head, httpx.RemoteProtocolError),
        (resets_before_head, httpx.ReadError),
        (raw(b"garbage\r\n\r\n"), httpx.RemoteProtocolError),
        (raw(OK, close=True), httpx.RemoteProtocolError),
        (raw(OK + b"Content-Length: 9\r\n\r\nhello", close=True), httpx.RemoteProtocolError),
        (
            raw(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", close=True),
            httpx.RemoteProtocolError,
        ),
        (raw(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"), httpx.RemoteProtocolError),
        (
            raw(OK + b"X: " + b"x" * 70_000),
            httpx.RemoteProtocolError,
        ),
        (
            raw(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
            httpx.RemoteProtocolError,
        ),
    ],
)
async def test_an_incomplete_answer_is_an_error(
    fake: FakeOllama, transport: HTTPTransport, reply: object, error: type[Exception]
) -> None:
    fake.reply(reply, path="/x")  # type: ignore[arg-type]
    with pytest.raises(error):
        await get(transport)
    assert await get(transport, "/api/version") == (200, b'{"version":"0.24.0"}')


async def test_data_before_a_reset_is_read_first(
    fake: FakeOllama, transport: HTTPTransport
) -> None:
    fake.reply(after(3, Connection.reset), path="/x")
    request = httpx.Request("POST", "http://fake/x", content=b'{"model":"m"}')
    response = await transport.handle_async_request(request)
    await asyncio.sleep(0.1)
    assert isinstance(response.stream, httpx.AsyncByteStream)
    chunks = []
    with pytest.raises(httpx.ReadError):  # noqa: PT012
        async for chunk in response.stream:
            chunks.append(chunk)  # noqa: PERF401 - the loop does not end normally
    assert b"".join(chunks).count(b"\n") == 3
    await response.aclose()


@pytest.mark.parametrize(
    "greeting", [b"\x15\x03\x03\x00\x02\x02F", b"-ERR unknown command\r\n", b"SSH-2.0-x\r\n"]
)
async def test_another_kind_of_server_is_recognized(
    fake: FakeOllama, transport: HTTPTransport, greeting: bytes
) -> None:
    fake.reply(raw(greeting, close=True), path="/x")
    with pytest.raises(ForeignProtocol):
        await get(transport)


async def test_nobody_listening_is_a_connect_error(
    transport: HTTPTransport, fake: FakeOllama
) -> None:
    await fake.stop()
    with pytest.raises(httpx.ConnectError):
        await get(transport)


async def test_connecting_has_a_time_limit_of_its_own() -> None:
    never_shakes_hands = asyncio.Protocol
    server = await asyncio.get_running_loop().create_server(never_shakes_hands, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    pool = Pool(host, port, connect_timeout_s=0.1, ssl_context=ssl.create_default_context())
    with pytest.raises(httpx.ConnectTimeout):
        await get(HTTPTransport(pool))
    server.close()


async def test_connections_are_reused(fake: FakeOllama, transport: HTTPTransport) -> None:
    for _ in range(5):
        await get(transport, "/api/version")
    assert fake.connections == 1
    await asyncio.gather(*(get(transport, "/api/version") for _ in range(3)))
    assert fake.connections == 3
    await asyncio.gather(*(get(transport, "/api/version") for _ in range(3)))
    assert fake.connections == 3


async def test_a_body_that_is_closed_twice_leaves_its_connection_to_the_next_request(
    fake: FakeOllama, pool: Pool
) -> None:
    request = request_bytes(b"GET", b"/api/version", [(b"host", b"127.0.0.1")])
    _, _, first = await pool.send(request)
    await first.drain()
    first.close()
    second = asyncio.create_task(pool.send(request))
    await asyncio.sleep(0)  # it has taken the connection
    first.close()
    _, _, body = await second
    assert b"version" in await body.read()
    body.close()
    assert fake.connections == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_connection_closed_while_idle_is_replaced(
    fake: FakeOllama, transport: HTTPTransport, method: str
) -> None:
    await get(transport, "/api/version")
    fake.drop_connections()
    await asyncio.sleep(0.01)
    assert (await get(transport, "/api/version", method))[0] in {200, 405}
    assert fake.connections == 2


async def test_a_close_that_the_loop_has_not_seen_yet_is_detected(
    fake: FakeOllama, transport: HTTPTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    await get(transport, "/api/version")
    (idle,) = transport._pool._idle
    with monkeypatch.context() as patch:
        patch.setattr(type(idle), "eof_received", lambda _: True)  # as in a process that was frozen
        fake.drop_connections()
        await asyncio.sleep(0.05)
        assert not idle.alive()
    assert (await get(transport, "/api/version"))[0] == 200


async def test_a_request_that_may_have_been_seen_is_never_repeated(
    fake: FakeOllama, transport: HTTPTransport
) -> None:
    await get(transport, "/api/version")
    fake.reply(closes_before_head, resets_before_head, path="/x")
    for method in ("GET", "POST"):
        with pytest.raises(httpx.TransportError):
            await get(transport, "/x", method)
    assert len(fake.asked("/x")) == 2


async def test_an_idle_connection_is_not_kept_for_long(
    fake: FakeOllama, transport: HTTPTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_EXPIRY_S", 0)
    await get(transport, "/api/version")
    await get(transport, "/api/version")
    assert fake.connections == 2


async def test_idle_connections_end_by_themselves(
    fake: FakeOllama, transport: HTTPTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_EXPIRY_S", 0.05)
    monkeypatch.setattr(module, "_SWEEP_EVERY_S", 0.05)
    await asyncio.gather(*(get(transport, "/api/version") for _ in range(3)))
    assert fake.open
    async with asyncio.timeout(10):
        while fake.open:
            await asyncio.sleep(0.01)
    assert not transport._pool._idle


async def test_the_number_of_idle_connections_is_bounded(
    fake: FakeOllama, transport: HTTPTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_IDLE", 2)
    await asyncio.gather(*(get(transport, "/api/version") for _ in range(5)))
    async with asyncio.timeout(10):
        while len(fake.open) > 2:
            await asyncio.sleep(0.01)
    assert len(transport._pool._idle) == len(fake.open) == 2


@pytest.mark.parametrize(
    "parts",
    [
        (OK + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello",),
        (OK + b"Content-Length: 5\r\n\r\nhello", b"and more"),
        (OK + b"Content-Length: 5\r\n\r\nhello" + OK + b"Content-Length: 3\r\n\r\nabc",),
        (OK + b"Content-Length: 5\r\n\r\nhello" + OK + b"Content-Length: 3\r\n\r\n", b"abc"),
    ],
)
async def test_a_connection_unfit_for_reuse_is_not_reused(
    fake: FakeOllama, transport: HTTPTransport, parts: tuple[bytes, ...]
) -> None:
    fake.reply(raw(*parts), path="/x")
    assert await get(transport) == (200, b"hello")
    await asyncio.sleep(0.05)
    await get(transport, "/api/version")
    assert fake.connections == 2


async def test_a_body_not_read_to_its_end_closes_the_connection(
    fake: FakeOllama, transport: HTTPTransport
) -> None:
    fake.reply(stalls_after(1), path="/x")
    request = httpx.Request("POST", "http://fake/x", content=b'{"model":"m"}')
    response = await transport.handle_async_request(request)
    await response.aclose()
    async with asyncio.timeout(10):
        await fake.asked("/x")[0].disconnected.wait()


async def test_cancelling_closes_the_connection(fake: FakeOllama, transport: HTTPTransport) -> None:
    fake.reply(never_answers, path="/x")
    task = asyncio.create_task(get(transport))
    request = await fake.wait_for(1, "/x")
    task.cancel()
    async with asyncio.timeout(10):
        await request.disconnected.wait()
    assert not transport._pool._idle


async def test_a_slow_reader_makes_the_upstream_wait(
    fake: FakeOllama, transport: HTTPTransport
) -> None:
    sent = 0
    size = 64 * 2**20

    async def reply(connection: Connection, request: Request) -> None:
        nonlocal sent
        connection.send_raw(OK + b"Content-Length: %d\r\n\r\n" % size)
        while sent < size:
            if connection.transport.get_write_buffer_size() > 2**20:
                await asyncio.sleep(0.01)
                continue
            connection.send_raw(bytes(2**18))
            sent += 2**18

    fake.reply(reply, path="/x")
    response = await transport.handle_async_request(httpx.Request("GET", "http://fake/x"))
    await asyncio.sleep(0.3)
    assert sent < size / 2
    assert len(await response.aread()) == size
    await response.aclose()


async def test_a_large_body_is_sent_whole(fake: FakeOllama, transport: HTTPTransport) -> None:
    body = bytes(range(256)) * 80_000
    request = httpx.Request("POST", "http://fake/x", content=body)
    fake.reply(recorded("version"), path="/x")
    response = await transport.handle_async_request(request)
    await response.aclose()
    assert fake.asked("/x")[0].body == body


async def test_a_request_leaves_the_memory_before_its_answer_comes(
    fake: FakeOllama, pool: Pool
) -> None:
    body = bytes(2**20)
    request = request_bytes(b"POST", b"/x", [(b"content-length", b"%d" % len(body))], body)
    references = sys.getrefcount(request)
    fake.reply(never_answers, path="/x")
    task = asyncio.create_task(pool.send(request))
    await fake.wait_for(1, "/x")
    assert sys.getrefcount(request) == references
    task.cancel()
    await asyncio.wait({task})


async def test_a_connection_lost_before_its_request_fails_the_request(
    fake: FakeOllama, transport: HTTPTransport
) -> None:
    connection = await transport._pool._connect()
    connection.abort()
    await asyncio.sleep(0.01)
    async with asyncio.timeout(10):
        with pytest.raises(ConnectionBroken):
            await connection.exchange(b"GET /api/version HTTP/1.1\r\n\r\n")


async def test_an_invalid_host_name_is_a_connect_error() -> None:
    pool = Pool("a..b", 80, connect_timeout_s=2)
    with pytest.raises(httpx.ConnectError):
        await get(HTTPTransport(pool))
