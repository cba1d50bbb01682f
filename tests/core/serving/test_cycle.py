"""An answer on its way to the socket: in one write if it is whole, and never a wrong one."""

import asyncio
import socket
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

import pytest
import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from core.context import Recorder
from core.contract.responses import JSONResponse
from core.serving.connections import Connections
from core.serving.exchange import ExchangeMiddleware
from core.serving.heads import parsed
from core.serving.protocol import Protocol
from core.settings.schema import Settings

GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n"


class Transport:
    """What a protocol writes to."""

    def __init__(self) -> None:
        self.socket = socket.socket()
        self.writes: list[bytes] = []
        self.closed = False

    def get_extra_info(self, name: str) -> Any:
        peers = {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)}
        return self.socket if name == "socket" else peers.get(name)

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return False


@pytest.fixture
def transport() -> Iterator[Transport]:
    transport = Transport()
    yield transport
    transport.socket.close()


Connect = Callable[[ASGIApp], Protocol]


@pytest.fixture
async def connect(transport: Transport) -> Connect:
    def connect(app: ASGIApp) -> Protocol:
        config = uvicorn.Config(app, ws="none", log_config=None, access_log=False)
        protocol = Protocol(
            limits=Connections(Settings()),
            config=config,
            server_state=ServerState(),
            app_state={},
        )
        protocol.connection_made(cast("asyncio.Transport", transport))
        return protocol

    return connect


async def run(protocol: Protocol, request: bytes) -> None:
    """Let `protocol` receive `request`, and wait until it is over."""
    protocol.data_received(request)
    await asyncio.gather(*protocol.tasks)


def sends(*messages: dict[str, Any]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def start(*headers: tuple[bytes, bytes], status: int = 200) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def leaves(headers: dict[str, str] | None = None) -> ExchangeMiddleware:
    """Return an application that leaves a whole answer for `ExchangeMiddleware` to send."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["response"] = JSONResponse("hello", headers=headers)

    return ExchangeMiddleware(app, timeout_s=30, recorder=Recorder())


whole = pytest.mark.parametrize("app", [Response('"hello"'), leaves()], ids=["sent", "left"])


@whole
async def test_a_whole_answer_is_one_write(
    connect: Connect, transport: Transport, app: ASGIApp
) -> None:
    await run(connect(app), GET)
    (answer,) = transport.writes
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b'\r\n\r\n"hello"')
    assert b"\r\ncontent-length: 7\r\n" in answer
    assert not transport.closed


async def test_a_streams_head_goes_with_its_first_piece(
    connect: Connect, transport: Transport
) -> None:
    messages = (start(), body(b"one", more=True), body(b"two", more=True), body(b""))
    await run(connect(sends(*messages)), GET)
    first, *rest = transport.writes
    assert first == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n"
    assert rest == [b"3\r\ntwo\r\n", b"0\r\n\r\n"]


async def test_http_1_0_gets_a_stream_without_chunks(
    connect: Connect, transport: Transport
) -> None:
    messages = (start(), body(b"one", more=True), body(b"two", more=True), body(b""))
    await run(connect(sends(*messages)), GET.replace(b"1.1", b"1.0"))
    assert b"".join(transport.writes) == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nonetwo"
    assert transport.closed


@whole
async def test_a_head_request_gets_the_head_alone(
    connect: Connect, transport: Transport, app: ASGIApp
) -> None:
    protocol = connect(app)
    await run(protocol, GET.replace(b"GET", b"HEAD"))
    await run(protocol, GET.replace(b"GET", b"HEAD"))
    assert len(transport.writes) == 2
    for answer in transport.writes:
        assert b"\r\ncontent-length: 7\r\n" in answer
        assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"x-model", b"a\r\nset-cookie: b"),
        (b"x-model", b"a\nb"),
        (b"x-model", b"a\rb"),
        (b"x-model", b"a\0b"),
        (b"x model", b"a"),
        (b"x-model\r\nset-cookie", b"a"),
    ],
)
@pytest.mark.parametrize("left", [True, False])
async def test_a_header_with_a_line_end_becomes_an_error(
    connect: Connect, transport: Transport, name: bytes, value: bytes, left: bool
) -> None:
    app = ExchangeMiddleware(
        sends(start((name, value)), body(b"hello")), timeout_s=30, recorder=Recorder()
    )
    if left:
        app = leaves({name.decode(): value.decode()})
    await run(connect(app), GET)
    (answer,) = transport.writes
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert answer.count(b"\r\n\r\n") == 1
    assert b'"success":false' in answer
    assert b"set-cookie" not in answer


@pytest.mark.parametrize("length", [b"4", b"6"])
async def test_an_answer_of_the_wrong_length_ends_its_connection(
    connect: Connect, transport: Transport, length: bytes
) -> None:
    app = sends(start((b"content-length", length)), body(b"hel", more=True), body(b"lo"))
    await run(connect(app), GET)
    assert transport.closed


async def test_an_application_that_fails_is_a_500_in_the_shape_of_its_api(
    connect: Connect, transport: Transport
) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError

    await run(connect(fails), GET.replace(b"/", b"/v1/models", 1))
    (answer,) = transport.writes
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b'{"error":{"message":"Internal error.' in answer


async def read(receive: Receive) -> bytes:
    data, more = b"", True
    while more:
        message = await receive()
        data += message.get("body", b"")
        more = message.get("more_body", False)
    return data


async def test_a_client_that_waits_gets_a_100_continue(
    connect: Connect, transport: Transport
) -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(await read(receive))(scope, receive, send)

    protocol = connect(echo)
    protocol.data_received(POST + b"expect: 100-continue\r\n\r\n")
    await asyncio.sleep(0)
    assert transport.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    await run(protocol, b"hi")
    assert transport.writes[1].endswith(b"\r\n\r\nhi")


async def test_http_1_0_gets_no_100_continue(connect: Connect, transport: Transport) -> None:
    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await Response("read")(scope, receive, send)

    request = POST.replace(b"1.1", b"1.0") + b"expect: 100-continue\r\n\r\n{}"
    await run(connect(reads), request)
    assert b" 100 " not in b"".join(transport.writes)
    assert transport.writes[-1].endswith(b"read")


async def test_a_client_that_waits_for_nothing_is_answered_at_once(
    connect: Connect, transport: Transport
) -> None:
    await run(connect(Response("no")), POST + b"expect: 100-continue\r\n\r\n")
    (answer,) = transport.writes
    assert answer.startswith(b"HTTP/1.1 200 ")


@whole
async def test_nothing_is_written_while_the_client_does_not_read(
    connect: Connect, transport: Transport, app: ASGIApp
) -> None:
    protocol = connect(app)
    protocol.pause_writing()
    protocol.data_received(GET)
    for _ in range(10):
        await asyncio.sleep(0)
    assert transport.writes == []
    protocol.resume_writing()
    await asyncio.gather(*protocol.tasks)
    assert len(transport.writes) == 1


@pytest.mark.parametrize("paused", [True, False])
@whole
async def test_nothing_is_written_to_a_closed_connection(
    connect: Connect, transport: Transport, paused: bool, app: ASGIApp
) -> None:
    protocol = connect(app)
    if paused:
        protocol.pause_writing()
    protocol.data_received(GET)
    if paused:
        await asyncio.sleep(0)
    protocol.connection_lost(ConnectionResetError())
    await asyncio.gather(*protocol.tasks)
    assert transport.writes == []


async def test_a_refusal_takes_the_place_of_an_answer_that_is_not_sent_yet(
    connect: Connect, transport: Transport
) -> None:
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await go_on.wait()
        await send(body(b"too late"))

    protocol = connect(app)
    protocol.data_received(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
    await asyncio.sleep(0)
    protocol.data_received(b"not a size\r\n")
    go_on.set()
    await asyncio.gather(*protocol.tasks)
    (answer,) = transport.writes
    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_a_target_beyond_the_parsers_limit_is_refused(
    connect: Connect, transport: Transport
) -> None:
    protocol = connect(Response("hello"))
    protocol.data_received(GET.replace(b"/", b"/" + b"a" * 65_536, 1))
    (answer,) = transport.writes
    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_an_answer_begins_with_its_head(connect: Connect, transport: Transport) -> None:
    app: Callable[..., Awaitable[None]] = sends(body(b"hello"))
    await run(connect(app), GET)
    (answer,) = transport.writes
    assert answer.startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/api/chat", "/api/chat", b""),
        (b"/api/chat/", "/api/chat/", b""),
        (b"/", "/", b""),
        (b"/api/models?capabilities=true", "/api/models", b"capabilities=true"),
        (b"/a%20b", "/a b", b""),
        (b"/api%2fchat", "/api%2fchat", b""),
        (b"/API%2Fchat", "/api%2fchat", b""),
        (b"//host/path", "//host/path", b""),
        (b"http://localhost/api/chat?a", "/api/chat", b"a"),
    ],
)
def test_a_target_is_read_as_uvicorn_reads_it(target: bytes, path: str, query: bytes) -> None:
    decoded, raw_path, query_string = parsed(target)
    assert (decoded, query_string) == (path, query)
    assert target.partition(b"?")[0].endswith(raw_path)


def test_no_long_target_stays_in_memory() -> None:
    parsed(b"/")
    tracemalloc.start()
    try:
        for number in range(100):
            parsed(b"/%d" % number + b"a" * 60_000)
            parsed(b"/%d" % number + b"a" * 60_000 + b"%F0%9F%98%80?b")
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 100_000
