"""The answer as NDJSON: whole lines, sent as they arrive."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from core.contract.dialects import Dialect
from core.contract.responses import PREFERENCE_APPLIED
from core.contract.schemas import Heartbeat, StreamToken
from core.ollama.wire import Lines

MAX_PIECE_BYTES = 16 * 1024 - 16
"""How much fits into one TLS record as a single HTTP chunk."""
HEARTBEAT = Lines([""])
PREFERRED_HEARTBEAT = Lines([""])
"""Sent to a client that prefers heartbeats, as a `Heartbeat`."""
MAX_HEARTBEAT_S = 60

_HEARTBEAT = re.compile(r'heartbeat\s*=\s*"?([0-9]{1,2})"?', re.IGNORECASE)

_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines
_BEAT = _encode_lines([Heartbeat("", done=False)])
_START, _END = _encode(StreamToken("", done=False)).split(b'""')


class StreamResponse:
    """An ASGI application that sends lines; nothing is sent before the first ones arrive.

    Failures are raised, whether or not the answer has started; `ExchangeMiddleware` reports them
    to the client.
    """

    __slots__ = ("lines", "preferred_s")

    def __init__(
        self, lines: AsyncGenerator[Lines], *, heartbeat_s: float = 0, preferred_s: int = 0
    ) -> None:
        """Send an empty token after every `heartbeat_s` seconds without a line; 0 disables it.

        The client's own preference, `preferred_s`, takes precedence unless it is 0.
        """
        self.preferred_s = preferred_s
        if preferred_s:
            lines = with_heartbeats(lines, preferred_s, PREFERRED_HEARTBEAT)
        elif heartbeat_s:
            lines = with_heartbeats(lines, heartbeat_s, HEARTBEAT)
        self.lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        has_begun = False
        try:
            async for batch in self.lines:
                if not has_begun:
                    await send(self._start())
                    has_begun = True
                rest = _BEAT if batch is PREFERRED_HEARTBEAT else encoded(batch)
                while rest:
                    piece, rest = cut(rest)
                    more = bool(rest) or not batch.end
                    await send({"type": "http.response.body", "body": piece, "more_body": more})
                piece = b""  # or a kilobyte or more stays in memory until the next batch
        finally:
            await self.lines.aclose()

    def _start(self) -> Message:
        headers = [(b"content-type", Dialect.stream_type), (b"cache-control", b"no-store")]
        if self.preferred_s:
            headers.append((PREFERENCE_APPLIED, f"heartbeat={self.preferred_s}".encode()))
        return {"type": "http.response.start", "status": 200, "headers": headers}


def encoded(lines: Lines) -> bytes:
    """Return `lines` as NDJSON."""
    # A `StreamToken` for every piece would double the cost of a token; its JSON text has no
    # line feed of its own.
    texts = _encode_lines(lines.pieces).replace(b"\n", _END + b"\n" + _START)
    tokens = _START + texts.removesuffix(_START) if texts else b""
    return tokens + _encode(lines.end) + b"\n" if lines.end else tokens


def cut(lines: bytes) -> tuple[bytes, bytes]:
    """Split `lines` into those that fit into one TLS record, or else the first, and the rest.

    Many browser clients parse each piece they read on its own.
    """
    if len(lines) <= MAX_PIECE_BYTES:
        return lines, b""
    end = lines.rfind(b"\n", 0, MAX_PIECE_BYTES) + 1 or lines.index(b"\n") + 1
    return lines[:end], lines[end:]


def preferred_heartbeat_s(headers: Headers) -> int:
    """Return N of a request's `Prefer: heartbeat=N` (RFC 7240), 1 to 60 seconds; else 0.

    As the RFC requires, a preference that cannot be met is ignored.
    """
    for preference in ",".join(headers.getlist("prefer")).split(","):
        if match := _HEARTBEAT.fullmatch(preference.strip()):
            return int(match[1]) if int(match[1]) <= MAX_HEARTBEAT_S else 0
    return 0


async def with_heartbeats(
    lines: AsyncGenerator[Lines], idle_s: float, heartbeat: Lines
) -> AsyncGenerator[Lines]:
    """Yield what `lines` yields, and `heartbeat` after every `idle_s` seconds of silence."""
    timeout: float | None = idle_s
    async with aclosing(lines):
        while True:
            upcoming = asyncio.ensure_future(anext(lines, None))
            try:
                while not (await asyncio.wait({upcoming}, timeout=timeout))[0]:
                    yield heartbeat
            finally:
                if not upcoming.done():
                    upcoming.cancel()
                    await asyncio.wait({upcoming})
            if (batch := upcoming.result()) is None:
                return
            if batch.end:
                timeout = None  # nothing may follow
            yield batch
