"""The answer as NDJSON: whole lines, sent as they arrive."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from starlette.types import Receive, Scope, Send

from core.contract.responses import NDJSON
from core.contract.schemas import StreamEnd, StreamToken
from core.ollama.wire import Lines

MAX_PIECE_BYTES = 16 * 1024 - 16
"""How much fits into one TLS record as a single HTTP chunk."""
HEARTBEAT: Lines = [StreamToken("", done=False)]

_encode_lines = msgspec.json.Encoder().encode_lines


class StreamResponse:
    """An ASGI application that sends lines; nothing is sent before the first ones arrive.

    Failures are raised, whether or not the answer has started; `ExchangeMiddleware` reports them
    to the client.
    """

    def __init__(self, lines: AsyncGenerator[Lines], *, heartbeat_s: float = 0) -> None:
        """Send an empty token after every `heartbeat_s` seconds without a line; 0 disables it."""
        self.lines = with_heartbeats(lines, heartbeat_s) if heartbeat_s else lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        start = {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", NDJSON.encode()), (b"cache-control", b"no-store")],
        }
        async with aclosing(self.lines) as batches:
            async for batch in batches:
                if start:
                    await send(start)
                    start = {}
                ends, rest = isinstance(batch[-1], StreamEnd), _encode_lines(batch)
                while rest:
                    piece, rest = cut(rest)
                    more = bool(rest) or not ends
                    await send({"type": "http.response.body", "body": piece, "more_body": more})
                piece = b""  # or a kilobyte or more stays in memory until the next batch


def cut(lines: bytes) -> tuple[bytes, bytes]:
    """Split `lines` into those that fit into one TLS record, or else the first, and the rest.

    Many browser clients parse each piece they read on its own.
    """
    if len(lines) <= MAX_PIECE_BYTES:
        return lines, b""
    end = lines.rfind(b"\n", 0, MAX_PIECE_BYTES) + 1 or lines.index(b"\n") + 1
    return lines[:end], lines[end:]


async def with_heartbeats(lines: AsyncGenerator[Lines], idle_s: float) -> AsyncGenerator[Lines]:
    """Yield what `lines` yields, and an empty token after every `idle_s` seconds of silence."""
    timeout: float | None = idle_s
    async with aclosing(lines):
        while True:
            upcoming = asyncio.ensure_future(anext(lines, None))
            try:
                while not (await asyncio.wait({upcoming}, timeout=timeout))[0]:
                    yield HEARTBEAT
            finally:
                if not upcoming.done():
                    upcoming.cancel()
                    await asyncio.wait({upcoming})
            if (batch := upcoming.result()) is None:
                return
            if isinstance(batch[-1], StreamEnd):
                timeout = None  # nothing may follow
            yield batch
