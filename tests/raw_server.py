"""An HTTP server on loopback that sends whatever a test orders, byte by byte if need be.

It speaks raw HTTP because no framework can send half a chunk, a reset, or garbage.
"""

import asyncio
import json
import socket
import struct
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Self

import httptools


@dataclass
class Request:
    """A request as received."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: int
    received_at: float
    """The event loop's time, in seconds."""
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)
    """Set as soon as the client closes its connection before the answer is complete."""
    disconnected_at: float | None = None

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection(asyncio.Protocol):
    """One connection; answers its requests one after the other."""

    def __init__(self, server: "RawServer") -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._task: asyncio.Task[None] | None = None
        self._request: Request
        self._keep_alive = True

    @property
    def idle(self) -> bool:
        """Whether no request is still being answered."""
        return self._task is None or self._task.done()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._server.open.add(self)
        self._server.connections += 1
        self.number = self._server.connections

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def eof_received(self) -> None:
        self._client_has_gone()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.open.discard(self)
        if exc:  # a reset; otherwise the fake itself closed
            self._client_has_gone()
        if self._task:
            self._task.cancel()

    def _client_has_gone(self) -> None:
        if self._task and not self._task.done():
            self._request.disconnected_at = asyncio.get_running_loop().time()
            self._request.disconnected.set()
            self._task.cancel()

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers: list[tuple[str, str]] = []
        self._body = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode(), value.decode()))

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._keep_alive = self._parser.should_keep_alive()
        loop = asyncio.get_running_loop()
        self._request = Request(
            self._parser.get_method().decode(),
            self._url.decode(),
            self._headers,
            self._body,
            self.number,
            loop.time(),
        )
        self._server.requests.append(self._request)
        self._task = loop.create_task(self._answer(self._request))

    async def _answer(self, request: Request) -> None:
        try:
            await self._server.reply_to(request)(self, request)
        except Exception as mistake:  # the client must not be left waiting
            self.transport.abort()
            context = {"message": f"The reply to {request.path} failed", "exception": mistake}
            asyncio.get_running_loop().call_exception_handler(context)
        if not self._keep_alive:
            self.close()

    def _head(
        self, status: int, content_type: str, extra: Iterable[str], length: int | None
    ) -> str:
        """Return an answer's head in Go's header order; it is chunked without a `length`."""
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *extra]
        lines += [f"Content-Type: {content_type}"] if content_type else []
        lines += ["Date: Mon, 23 Nov 2026 07:47:56 GMT"]
        lines += [] if length is None else [f"Content-Length: {length}"]
        lines += [] if self._keep_alive else ["Connection: close"]
        lines += ["Transfer-Encoding: chunked"] if length is None else []
        return "\r\n".join([*lines, "", ""])

    def send_raw(self, data: bytes) -> None:
        self.transport.write(data)

    def send(self, status: int, content_type: str, body: bytes, *extra: str) -> None:
        """Send a whole answer with a Content-Length, as Ollama sends plain answers."""
        head = self._head(status, content_type, extra, len(body)).encode()
        self.send_raw(head if self._request.method == "HEAD" else head + body)

    def send_json(self, status: int, value: object) -> None:
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        self.send(status, "application/json; charset=utf-8", body)

    def send_head(self) -> None:
        """Start a stream."""
        self.send_raw(self._head(200, "application/x-ndjson", (), None).encode())

    def send_chunk(self, data: bytes) -> None:
        self.send_raw(b"%x\r\n%b\r\n" % (len(data), data))

    def send_line(self, value: object) -> None:
        self.send_chunk(
            json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        )

    def send_end(self) -> None:
        self.send_raw(b"0\r\n\r\n")

    def close(self) -> None:
        """Close the connection with a FIN once everything is sent."""
        self.transport.close()

    def reset(self) -> None:
        """Close the connection with a RST instead of a FIN."""
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    async def hang(self) -> None:
        """Send nothing more until the connection is lost."""
        await asyncio.Event().wait()


Reply = Callable[[Connection, Request], Awaitable[None]]


class RawServer(ABC):
    """The server; `async with` runs it at `url`."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.open: set[Connection] = set()
        self._replies: dict[str, deque[Reply]] = {}
        self._port = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> None:
        """Listen, on the same port as before if there was one."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self), host, port or self._port, backlog=2048
        )
        self._port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://{host}:{self._port}"

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        self.stop_listening()
        self.drop_connections()
        await asyncio.sleep(0.01)

    def stop_listening(self) -> None:
        """Refuse new connections and keep existing ones until `start`."""
        self._server.close()

    def drop_connections(self) -> None:
        for connection in list(self.open):
            connection.transport.abort()

    def drop_idle_connections(self) -> None:
        """Close idle keep-alive connections, as a server does after its timeout."""
        for connection in list(self.open):
            if connection.idle:
                connection.close()

    def reply(self, *replies: Reply, path: str = "/api/chat") -> None:
        """Answer the next requests for `path` with `replies`, one each."""
        self._replies.setdefault(path, deque()).extend(replies)

    def asked(self, path: str = "/api/chat") -> list[Request]:
        return [request for request in self.requests if request.path == path]

    async def wait_for(self, count: int = 1, path: str = "/api/chat") -> Request:
        """Wait until `count` requests for `path` have arrived; return the last one."""
        async with asyncio.timeout(20):
            while len(self.asked(path)) < count:
                await asyncio.sleep(0.002)
        return self.asked(path)[-1]

    def ordered(self, request: Request) -> Reply | None:
        """Take the next reply ordered for the request's path."""
        replies = self._replies.get(request.path)
        return replies.popleft() if replies else None

    @abstractmethod
    def reply_to(self, request: Request) -> Reply:
        """Return the reply to `request`."""
