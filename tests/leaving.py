"""How soon Ollama's connection is closed once the client has left a stream."""

import asyncio
import json
from urllib.parse import urlsplit

from tests.compatible import MODEL, QUESTION, STREAMS, cut
from tests.fake_ollama import Connection, FakeOllama, never_answers, stalls_after

NATIVE = "/api/chat/stream"
LEAVABLE = (NATIVE, *STREAMS)
PATIENCE_S = 20
"""Enough on a busy machine. `python -m tests.clients.v1` prints what it takes."""


async def seconds_until_freed(fake: FakeOllama, url: str, path: str, *, has_begun: bool) -> float:
    """Ask for a stream, and close the connection: in its midst, or before it has begun.

    Returns:
        the seconds from the client's close until the fake lost its own connection, and so a
        real Ollama would have stopped the model.
    """
    asked_path = "/api/chat" if path == NATIVE else path
    if not has_begun:
        fake.reply(never_answers, path=asked_path)
    elif path == NATIVE:
        fake.reply(stalls_after(3), path=asked_path)
    else:
        fake.reply(cut(STREAMS[path], 0.5, Connection.hang), path=asked_path)
    before = len(fake.asked(asked_path))
    reader, writer = await _ask(url, path)
    request = await fake.wait_for(before + 1, asked_path)
    if has_begun:
        await reader.readuntil(b"data: " if path != NATIVE else b'{"response"')
    loop = asyncio.get_running_loop()
    left_at = loop.time()
    writer.close()
    async with asyncio.timeout(PATIENCE_S):
        await request.disconnected.wait()
    assert request.disconnected_at
    return request.disconnected_at - left_at


async def _ask(url: str, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = urlsplit(url)
    body = json.dumps(
        {"message": "hi", "model": MODEL}
        if path == NATIVE
        else {"model": MODEL, "messages": QUESTION, "stream": True, "max_tokens": 16}
    )
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    return reader, writer
