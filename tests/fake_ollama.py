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
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Self
from urllib.parse import urlsplit

import httptools

from tests.recorded import Recorded

CREATED_AT = "2026-11-23T07:47:56.771624816Z"
CONTEXT = [1, 4093, 198, 1780, 314, 7042, 30]
TOKENS = ("The", " capital", " of", " France", " is", " Paris", ".")
VOCABULARY_SIZE = 49152


@dataclass
class Request:
    """A request as it came."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: int
    received_at: float
    """The event loop's time, in seconds."""
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)
    """Set as soon as the client has closed its connection before the answer's end."""
    disconnected_at: float | None = None

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Connection(asyncio.Protocol):
    """One connection of the fake: its requests are answered one after the other."""

    def __init__(self, server: "FakeOllama") -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._task: asyncio.Task[None] | None = None
        self._request: Request
        self._keep_alive = True

    @property
    def idle(self) -> bool:
        """Whether no request waits for the rest of its answer."""
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
        if exc:  # a reset; where there is none, the fake itself has closed
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
        except Exception:
            self.transport.abort()  # a mistake in a test must not leave its client waiting
            raise
        if not self._keep_alive:
            self.close()

    def _head(
        self, status: int, content_type: str, extra: Iterable[str], length: int | None
    ) -> str:
        """Return the head of an answer, as Go orders it; it is chunked if it has no `length`."""
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
        """Send a whole answer with a Content-Length, as Ollama sends what is not a stream."""
        head = self._head(status, content_type, extra, len(body)).encode()
        self.send_raw(head if self._request.method == "HEAD" else head + body)

    def send_json(self, status: int, value: object) -> None:
        body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
        self.send(status, "application/json; charset=utf-8", body)

    def send_head(self) -> None:
        """Begin a stream."""
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
        """End the connection with a FIN, once all is sent."""
        self.transport.close()

    def reset(self) -> None:
        """End the connection with a RST instead of a FIN."""
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    async def hang(self) -> None:
        """Send nothing more, until the connection is lost."""
        await asyncio.Event().wait()


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
        if not lines:
            connection.send_head()
        connection.send_line({**head, "response": final_text, "done": True, **figures})
        connection.send_end()

    return reply


def no_tokens(done_reason: str) -> Reply:
    """Answer a generate request without a prompt, which loads or unloads its model."""

    async def reply(connection: Connection, request: Request) -> None:
        answer = {"model": request.json["model"], "created_at": CREATED_AT, "response": ""}
        connection.send_json(200, {**answer, "done": True, "done_reason": done_reason})

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
            connection.close()

    return reply


def error(status: int, text: str) -> Reply:
    async def reply(connection: Connection, request: Request) -> None:
        connection.send_json(status, {"error": text})

    return reply


def plain(status: int, text: str, *headers: str) -> Reply:
    """Answer as Ollama's router does where no handler is found."""

    async def reply(connection: Connection, request: Request) -> None:
        connection.send(status, "text/plain", text.encode(), *headers)

    return reply


def page(status: int, body: bytes = b"<html><h1>Bad Gateway</h1></html>", *headers: str) -> Reply:
    """Answer as a relay does whose upstream has gone."""

    async def reply(connection: Connection, request: Request) -> None:
        connection.send(status, "text/html", body, *headers)

    return reply


async def never_answers(connection: Connection, request: Request) -> None:
    await connection.hang()


async def closes_before_head(connection: Connection, request: Request) -> None:
    connection.close()


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
    return after(count, Connection.hang)


def is_local(host: str) -> bool:
    """Tell whether an Ollama bound to loopback takes a request for `host`."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ip_address(name).is_private
    except ValueError:
        return name in {"", "localhost"} or name.endswith((".localhost", ".local", ".internal"))


class FakeOllama:
    """The server; `async with FakeOllama() as fake` runs it at `fake.url`."""

    def __init__(self, models: Sequence[str] = ("smollm2:135m", "llama3.1:70b")) -> None:
        self.models = list(models)
        self.loaded: set[str] = set()
        self.vocabulary_size: int | None = VOCABULARY_SIZE
        self.check_host = False
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
        self.stop_listening()
        self.drop_connections()
        await asyncio.sleep(0.01)

    def stop_listening(self) -> None:
        """Refuse new connections, and keep those there are, until `start`."""
        self._server.close()

    def drop_connections(self) -> None:
        for connection in list(self.open):
            connection.transport.abort()

    def drop_idle_connections(self) -> None:
        """Close the kept-alive connections, as a server does that has waited long enough."""
        for connection in list(self.open):
            if connection.idle:
                connection.close()

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
        host = next((value for name, value in request.headers if name.lower() == "host"), "")
        if self.check_host and not is_local(host):
            return recorded("err_host_evil")
        if queued := self._replies.get(request.path):
            return queued.popleft()
        routes: dict[str, tuple[str, Reply]] = {
            "/api/version": ("HEAD, GET", self._version),
            "/api/tags": ("HEAD, GET", self._tags),
            "/api/ps": ("HEAD, GET", self._ps),
            "/api/show": ("POST", self._show),
            "/api/generate": ("POST", self._generate),
        }
        if request.path not in routes:
            return plain(404, "404 page not found")
        allowed, reply = routes[request.path]
        if request.method not in allowed.split(", "):
            return plain(405, "405 method not allowed", f"Allow: {allowed}")
        return reply

    async def _version(self, connection: Connection, request: Request) -> None:
        connection.send_json(200, {"version": "0.24.0"})

    async def _tags(self, connection: Connection, request: Request) -> None:
        (model,) = json.loads(Recorded("tags_one").body)["models"]
        models = [{**model, "name": name, "model": name} for name in self.models]
        connection.send_json(200, {"models": models})

    async def _ps(self, connection: Connection, request: Request) -> None:
        (model,) = json.loads(Recorded("ps_loaded").body)["models"]
        models = [{**model, "name": name, "model": name} for name in sorted(self.loaded)]
        connection.send_json(200, {"models": models})

    async def _show(self, connection: Connection, request: Request) -> None:
        model = request.json["model"]
        if model.lower() not in self.models:
            connection.send_json(404, {"error": f"model '{model}' not found"})
            return
        info: dict[str, Any] = {"general.architecture": "llama", "llama.context_length": 2048}
        if self.vocabulary_size is not None:
            info["llama.vocab_size"] = self.vocabulary_size
        connection.send_json(200, {"model_info": info, "capabilities": ["completion"]})

    async def _generate(self, connection: Connection, request: Request) -> None:
        await self._generate_reply(request)(connection, request)

    def _generate_reply(self, request: Request) -> Reply:
        if not request.body:
            return recorded("err_body_empty")
        try:
            body = request.json
        except ValueError:
            return recorded("err_bad_json")
        if not isinstance(body, dict):
            return recorded("err_body_array")
        context = body.get("context") or []
        if any(not -(2**63) <= token < 2**63 for token in context):
            return recorded("context_id_over_int64")
        model = body.get("model", "")
        if model.lower() not in self.models:
            return error(404, f"model '{model}' not found")
        if any(token % 2**32 >= VOCABULARY_SIZE for token in context):
            return closes_before_head  # 0.24 dies of it; it has cut the ids to 32 bits before
        unload = body.get("keep_alive") == 0
        (self.loaded.discard if unload else self.loaded.add)(model.lower())
        if body.get("prompt"):
            return self.default
        return no_tokens("unload" if unload else "load")


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
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()
    await fake.stop()


if __name__ == "__main__":
    asyncio.run(_main())
