"""The upstream of the suite: a fake Ollama that answers as the message asks.

`NUMBER WAY PACE`: answer with the texts of NUMBER, or fail in one of `WAYS`, with PACE seconds
between two tokens. GET /seen lists how often each number has arrived.
"""

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import Sequence

from tests.fake_ollama import (
    Connection,
    FakeOllama,
    Reply,
    Request,
    after,
    closes_before_head,
    error,
    never_answers,
    page,
    resets_before_head,
    stalls_after,
    tokens,
    whole,
)

TOKENS = 12


def texts(number: int) -> list[str]:
    """Return the answer that belongs to `number` alone."""
    return [f" {number}.{index}" for index in range(TOKENS)]


def raw(data: bytes) -> Reply:
    async def reply(connection: Connection, request: Request) -> None:
        connection.send_raw(data)
        connection.close()

    return reply


def half_line(connection: Connection) -> None:
    connection.send_chunk(b'{"message":{"content":"hal')
    connection.close()


def end_without_done(connection: Connection) -> None:
    connection.send_line({"message": {"content": ""}, "done": False})
    connection.send_end()


def error_line(connection: Connection) -> None:
    connection.send_line({"error": "llama runner process no longer running: -1"})
    connection.send_end()


def garbage_line(connection: Connection) -> None:
    connection.send_chunk(b"<html>\n")
    connection.send_end()


BUSY = "server busy, please try again.  maximum pending requests exceeded"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
WAYS: dict[str, Reply] = {
    "crash": error(500, "llama runner process has terminated: signal: killed"),
    "busy": error(503, BUSY),
    "limited": page(429, b"slow down", "Retry-After: 3"),
    "bad-option": error(500, 'option "temperature" must be of type float32'),
    "too-long": error(400, "the input length exceeds the context length"),
    "host-denied": whole(403, "", b""),
    "foreign-404": whole(404, "text/plain", b"404 page not found"),
    "redirect": page(302, b"", "Location: http://127.0.0.1/"),
    "relay-502": page(502),
    "page-200": page(200),
    "empty-200": whole(200, "application/json", b""),
    "not-done": whole(200, "application/json", b'{"message":{"content":"x"},"done":false}'),
    "closed": closes_before_head,
    "reset": resets_before_head,
    "not-http": raw(b"-ERR unknown command\r\n"),
    "half-head": raw(HEAD),
    "short-body": raw(HEAD + b"Content-Length: 999\r\n\r\n{"),
    "bad-chunk": raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "late-end": after(3, end_without_done),
    "late-error": after(3, error_line),
    "late-garbage": after(3, garbage_line),
    "late-half-line": after(3, half_line),
    "late-close": after(3, Connection.close),
    "late-reset": after(3, Connection.reset),
    "silence": never_answers,
    "late-silence": stalls_after(3),
}
"""Every way to fail; none may look like an answer."""
STATUSES = dict.fromkeys(WAYS, 500) | {
    "busy": 503,
    "limited": 503,
    "bad-option": 400,
    "too-long": 400,
    "silence": 504,
    "late-silence": 504,
}
"""What the gateway has to answer, unless a stream has begun."""


class Upstream(FakeOllama):
    """Answers as each message asks."""

    def __init__(self) -> None:
        super().__init__()
        self.default = self._by_message
        self._seen = Counter[str]()

    def reply_to(self, request: Request) -> Reply:
        self.requests.clear()
        if request.path == "/seen":
            return whole(200, "application/json", json.dumps(self._seen).encode())
        return super().reply_to(request)

    async def _by_message(self, connection: Connection, request: Request) -> None:
        number, way, pace = request.json["messages"][-1]["content"].split()
        self._seen[number] += 1
        reply = WAYS.get(way) or tokens(texts(int(number)), pace_s=float(pace))
        await reply(connection, request)


async def _main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args(arguments)
    server = Upstream()
    await server.start(options.port, options.host)
    print(server.url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
