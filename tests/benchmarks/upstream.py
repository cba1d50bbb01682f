"""A fast fake Ollama: prebuilt bytes on bare uvloop protocols, so that it is never the bottleneck.

`python -m tests.benchmarks.upstream PORT`. The prompt says what to answer: `tokens=500 pace=50` is
a stream of 500 tokens, 50 a second; `pace=0` is as fast as they are taken.
"""

import asyncio
import re
import sys
from functools import cache

import uvloop

_TOKEN = (
    b'{"model":"smollm2:135m","created_at":"2026-11-23T07:47:57.175249565Z",'
    b'"response":" of","done":false}\n'
)
_END = (
    b'"done":true,"done_reason":"stop","context":[1,4093,198,1780,314,260,3575,282,4649,47,2,198,1,'
    b'520,9531,198,504,3575,282,4649,314,7042,30],"total_duration":331542986,"load_duration":41531441,'
    b'"prompt_eval_count":16,"prompt_eval_duration":22605989,"eval_count":8,"eval_duration":263927630}'
)
_MODEL = b'{"model":"smollm2:135m","created_at":"2026-11-23T07:47:56.771624816Z",'
_PLAIN = _MODEL + b'"response":"The capital of France is Paris.",' + _END
_VERSION = b'{"version":"0.24.0"}'
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def _whole(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n"
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


TOKEN_CHUNK = _chunk(_TOKEN)
END_CHUNK = _chunk(_MODEL + b'"response":"",' + _END + b"\n") + b"0\r\n\r\n"
PLAIN, VERSION = _whole(_PLAIN), _whole(_VERSION)


@cache
def _flat_out(tokens: int) -> bytes:
    return _STREAM_HEAD + TOKEN_CHUNK * tokens + END_CHUNK


class Upstream(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._request = b""

    def data_received(self, data: bytes) -> None:
        self._request += data
        head, found, body = self._request.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
        if not found or len(body) < int(length[1] if length else 0):
            return
        self._request = b""
        if head.startswith(b"GET"):
            self._write(VERSION)
        elif re.search(rb'"stream": *false', body):
            self._write(PLAIN)
        else:
            order = re.search(rb"tokens=(\d+) pace=(\d+)", body)
            tokens, pace = (int(order[1]), int(order[2])) if order else (8, 0)
            if pace:
                self._write(_STREAM_HEAD + TOKEN_CHUNK)
                self._left, self._interval = tokens - 1, 1 / pace
                loop = asyncio.get_running_loop()
                self._next = loop.time()
                loop.call_later(self._interval, self._paced)
            else:
                self._write(_flat_out(tokens))

    def _paced(self) -> None:
        loop = asyncio.get_running_loop()
        if self._transport.is_closing():
            return
        if self._left:
            self._left -= 1
            self._write(TOKEN_CHUNK)
            self._next += self._interval
            loop.call_at(self._next + self._interval, self._paced)
        else:
            self._write(END_CHUNK)

    def _write(self, data: bytes) -> None:
        self._transport.write(data)  # type: ignore[attr-defined]


async def _main(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_main(int(sys.argv[1])))
