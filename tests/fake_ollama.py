"""A fake Ollama: a real HTTP server on loopback that answers as told, byte by byte if need be.

Without orders it answers as the recorded server does. It speaks raw HTTP, for no framework can
send half a chunk, a reset or an HTML page in the place of an answer.
"""

import argparse
import asyncio
import json
import signal
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

import httptools

from tests.recorded import Recorded

CREATED_AT = "2026-11-23T07:47:56.771624816Z"
CONTEXT = [1, 4093, 198, 1780, 314, 7042, 30]
TOKENS = ("The", " capital", " of", " France", " is", " Paris", ".")
REASONS = {200: "OK", 301: "Moved Permanently", 400: "Bad Request", 403: "Forbidden"}
REASONS |= {404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error"}
REASONS |= {502: "Bad Gateway", 503: "Service Unavailable"}


@dataclass
class Request:
    """A request as it came."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: int
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)
    """Set as soon as the client has closed its connection before the answer's end."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection(asyncio.Protocol):
    """One connection of the fake: its requests are answered one after the other."""

    def __init__(self, server: "FakeOllama") -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._task: asyncio.Task[None] | None = None
        self._request: Request | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._server.open.add(self)
        self._server.connections += 1
        self.number = self._server.connections

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.open.discard(self)
        if self._task and self._request and not self._task.done():
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
        method = self._parser.get_method().decode()
        request = Request(method, self._url.decode(), self._headers, self._body, self.number)
        self._request = request
        self._server.requests.append(request)
        self._task = asyncio.ensure_future(self._answer(request))

    async def _answer(self, request: Request) -> None:
        await self._server.reply_to(request)(self, request)

    def send_raw(self, data: bytes) -> None:
        self.transport.write(data)

    def send(self, status: int, content_type: str, body: bytes, *extra: str) -> None:
        """Send a whole answer with a Content-Length, as Ollama sends what is not a stream."""
        head = [f"HTTP/1.1 {status} {REASONS[status]}", *extra]
        head += [f"Content-Type: {content_type}"] if content_type else []
        head += ["Date: Mon, 23 Nov 2026 07:47:56 GMT", f"Content-Length: {len(body)}"]
        self.send_raw("\r\n".join([*head, "", ""]).encode() + body)

    def send_json(self, status: int, value: object) -> None:
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        self.send(status, "application/json; charset=utf-8", body)

    def send_head(self) -> None:
        """Begin a stream."""
        self.send_raw(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
            b"Date: Mon, 23 Nov 2026 07:47:56 GMT\r\nTransfer-Encoding: chunked\r\n\r\n"
        )

    def send_chunk(self, data: bytes) -> None:
        self.send_raw(b"%x\r\n%b\r\n" % (len(data), data))

    def send_line(self, value: object) -> None:
        self.send_chunk(
            json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        )

    def send_end(self) -> None:
        self.send_raw(b"0\r\n\r\n")

    def reset(self) -> None:
        """End the connection with a RST instead of a FIN."""
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()


Reply = Callable[[Connection, Request], Awaitable[None]]


def tokens(
    texts: Sequence[str] = TOKENS,
    *,
    pace_s: float = 0,
    context: list[int] | None = CONTEXT,
    thinking: Sequence[str] = (),
    final_text: str = "",
    done_reason: str = "stop",
) -> Reply:
    """Answer a generate request with `texts`, one a line, or all at once if it wants no stream."""

    async def reply(connection: Connection, request: Request) -> None:
        model = request.json["model"]
        figures = {
            "done_reason": done_reason,
            **({} if context is None else {"context": context}),
            "total_duration": 331542986,
            "load_duration": 41531441,
            "prompt_eval_count": 16,
            "prompt_eval_duration": 22605989,
            "eval_count": len(texts) + 1,
            "eval_duration": 263927630,
        }
        head = {"model": model, "created_at": CREATED_AT}
        if request.json.get("stream") is False:
            whole = {"response": "".join(texts) + final_text}
            thoughts = {"thinking": "".join(thinking)} if thinking else {}
            await asyncio.sleep(pace_s * len(texts))
            connection.send_json(200, {**head, **whole, **thoughts, "done": True, **figures})
            return
        lines = [{"response": "", "thinking": thought, "done": False} for thought in thinking]
        lines += [{"response": text, "done": False} for text in texts]
        for index, line in enumerate(lines):
            await asyncio.sleep(pace_s)
            if index == 0:
                connection.send_head()
            connection.send_line({**head, **line})
        connection.send_line({**head, "response": final_text, "done": True, **figures})
        connection.send_end()

    return reply


def recorded(name: str, piece: int = 0) -> Reply:
    """Replay a recording byte for byte, in writes of `piece` bytes; end as the real one did."""
    recording = Recorded(name)

    async def reply(connection: Connection, request: Request) -> None:
        size = piece or max(1, len(recording.raw))
        for start in range(0, len(recording.raw), size):
            connection.send_raw(recording.raw[start : start + size])
            await asyncio.sleep(0)
        if not recording.ended.startswith(("complete", "timeout")):
            connection.transport.close()

    return reply


def error(status: int, text: str) -> Reply:
    async def reply(connection: Connection, request: Request) -> None:
        connection.send_json(status, {"error": text})

    return reply


def page(status: int, body: bytes = b"<html><h1>Bad Gateway</h1></html>", *headers: str) -> Reply:
    """Answer as a relay does whose upstream has gone."""

    async def reply(connection: Connection, request: Request) -> None:
        connection.send(status, "text/html", body, *headers)

    return reply


async def never_answers(connection: Connection, request: Request) -> None:
    await asyncio.Event().wait()


async def closes_before_head(connection: Connection, request: Request) -> None:
    connection.transport.close()


async def resets_before_head(connection: Connection, request: Request) -> None:
    connection.reset()


def after(count: int, end: Callable[[Connection], Awaitable[None] | None]) -> Reply:
    """Send `count` tokens of a stream, then do `end`."""

    async def reply(connection: Connection, request: Request) -> None:
        connection.send_head()
        for index in range(count):
            line = {"model": request.json["model"], "created_at": CREATED_AT}
            connection.send_line({**line, "response": f" {index}", "done": False})
        await asyncio.sleep(0.02)
        ending = end(connection)
        if ending is not None:
            await ending

    return reply


def stalls_after(count: int) -> Reply:
    return after(count, lambda _: asyncio.Event().wait())  # type: ignore[arg-type, return-value]


class FakeOllama:
    """The server; `async with FakeOllama() as fake` runs it at `fake.url`."""

    def __init__(self, models: Sequence[str] = ("smollm2:135m", "llama3.1:70b")) -> None:
        self.models = list(models)
        self.vocabulary_size: int | None = 49152
        self.requests: list[Request] = []
        self.connections = 0
        self.open: set[Connection] = set()
        self.default: Reply = tokens()
        self._replies: dict[str, deque[Reply]] = {}
        self._port = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        """Listen, on the same port as before if there was one."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self), "127.0.0.1", port or self._port, backlog=2048
        )
        self._port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Stop listening and close every connection."""
        self._server.close()
        self.drop_connections()
        await asyncio.sleep(0.01)

    def drop_connections(self) -> None:
        for connection in list(self.open):
            connection.transport.abort()

    def reply(self, *replies: Reply, path: str = "/api/generate") -> None:
        """Answer the next requests for `path` with `replies`, one each."""
        self._replies.setdefault(path, deque()).extend(replies)

    def asked(self, path: str = "/api/generate") -> list[Request]:
        return [request for request in self.requests if request.path == path]

    async def wait_for(self, count: int = 1, path: str = "/api/generate") -> Request:
        """Wait until `count` requests for `path` have come, and return the last one."""
        async with asyncio.timeout(5):
            while len(self.asked(path)) < count:
                await asyncio.sleep(0.002)
        return self.asked(path)[-1]

    def reply_to(self, request: Request) -> Reply:
        if queued := self._replies.get(request.path):
            return queued.popleft()
        known = {
            ("GET", "/api/version"): recorded("version"),
            ("GET", "/api/tags"): self._tags,
            ("POST", "/api/show"): self._show,
            ("POST", "/api/generate"): self._generate,
        }
        if reply := known.get((request.method, request.path)):
            return reply
        if any(request.path == path for _, path in known):
            return recorded("err_wrong_method_get_generate")
        return recorded("err_unknown_route")

    async def _tags(self, connection: Connection, request: Request) -> None:
        (model,) = json.loads(Recorded("tags_one").body)["models"]
        models = [{**model, "name": name, "model": name} for name in self.models]
        connection.send_json(200, {"models": models})

    async def _show(self, connection: Connection, request: Request) -> None:
        info: dict[str, Any] = {"general.architecture": "llama", "llama.context_length": 2048}
        if self.vocabulary_size is not None:
            info["llama.vocab_size"] = self.vocabulary_size
        connection.send_json(200, {"model_info": info, "capabilities": ["completion"]})

    async def _generate(self, connection: Connection, request: Request) -> None:
        body = request.json
        if body["model"].lower() not in self.models:
            connection.send_json(404, {"error": f"model '{body['model']}' not found"})
        elif any(not 0 <= token < 49152 for token in body.get("context", ())):
            connection.transport.close()  # a real 0.24 dies of it: recordings context_id_*
        elif not body.get("prompt"):
            await recorded("generate_empty_prompt_load_cold")(connection, request)
        else:
            await self.default(connection, request)


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--pace", type=float, default=0.02, help="seconds between tokens")
    parser.add_argument("--tokens", default="".join(TOKENS), help="the answer, cut at spaces")
    arguments = parser.parse_args()
    fake = FakeOllama()
    fake.default = tokens(arguments.tokens.replace(" ", "\0 ").split("\0"), pace_s=arguments.pace)
    await fake.start(arguments.port)
    print(fake.url, flush=True)  # noqa: T201
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    with suppress(KeyboardInterrupt):
        await stopped.wait()
    await fake.stop()


if __name__ == "__main__":
    asyncio.run(_main())
