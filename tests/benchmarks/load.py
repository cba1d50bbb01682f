"""Puts load on a server and measures what it costs."""

import asyncio
import json
import os
import resource
import socket
import subprocess
import time
from pathlib import Path

from tests.benchmarks.servers import FILES, LOAD_CORE, Server

SCRIPT = Path(__file__).with_name("load.lua")
HOLD_PACE = 1


class Failed(Exception):
    """A server has answered wrongly, so its figures mean nothing."""


def body(*, stream: bool, tokens: int = 0, pace: int = 0) -> bytes:
    """Return a request that every server, and Ollama itself, understands."""
    text = f"tokens={tokens} pace={pace}"
    fields = {"model": "smollm2:135m", "message": text, "prompt": text, "stream": stream}
    return json.dumps(fields).encode()


def run(
    server: Server, connections: int, seconds: int, *, tokens: int = 0, pace: int = 0
) -> dict[str, float]:
    """Ask on so many connections at once, without a pause; streams of `tokens`, or plain chats.

    Returns:
        `cpu_us`: microseconds of CPU for each chat, or each token of a stream;
        `per_s`: how many of them a second.

    Raises:
        Failed: an answer was wrong.
    """
    path = "/api/chat/stream" if tokens else "/api/chat"
    text = body(stream=bool(tokens), tokens=tokens, pace=pace).decode()
    command = ["taskset", "-c", str(LOAD_CORE), "prlimit", f"--nofile={FILES}"]
    command += ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s"]
    command += ["-s", str(SCRIPT), f"http://127.0.0.1:{server.port}{path}"]
    before = server.cpu_s()
    output = subprocess.run(
        command,
        env={**os.environ, "BODY": text, "TOKENS": str(tokens)},
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60,
    ).stdout
    cpu_s = server.cpu_s() - before
    result = json.loads(output.splitlines()[-1])
    if result["failed"] or not result["count"]:
        raise Failed(f"{server.name}: {result} with {connections} connections on {path}")
    count = result["count"] * (tokens or 1)
    if pace:  # streams under way at the end have cost as well, but are not counted
        count = connections * pace * result["seconds"]
    return {"cpu_us": cpu_s * 1e6 / count, "per_s": count / result["seconds"]}


class OneByOne:
    """A connection on which streams are asked for one after the other."""

    def __init__(self, server: Server) -> None:
        path = "/api/generate" if server.name == "upstream" else "/api/chat/stream"
        content = body(stream=True, tokens=4)
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        self._request = f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
        self._sock = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def first_token_s(self) -> float:
        """Ask for a stream, read it to its end, and return when its first token came."""
        started, came, data = time.perf_counter(), 0.0, b""
        self._sock.sendall(self._request)
        while not data.endswith(b"0\r\n\r\n"):
            data += self._sock.recv(65536)
            if not came and b'"response"' in data:
                came = time.perf_counter() - started
        return came

    def close(self) -> None:
        self._sock.close()


def held_bytes(server: Server, streams: int) -> float:
    """Return what each of so many open streams takes of the server's memory.

    Raises:
        Failed: not all of them could be opened.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES, hard), hard))
    return asyncio.run(_hold(server, streams))


async def _hold(server: Server, streams: int) -> float:
    content = body(stream=True, tokens=600, pace=HOLD_PACE)
    head = "POST /api/chat/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
    begun = asyncio.Semaphore(50)

    async def opened() -> asyncio.StreamWriter:
        async with begun:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request)
            await reader.readuntil(b"\n{")
            return writer

    before = server.memory_bytes()
    try:
        async with asyncio.timeout(20):
            writers = await asyncio.gather(*(opened() for _ in range(streams)))
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise Failed(f"{server.name} does not hold {streams} streams: {error!r}") from error
    await asyncio.sleep(1.5)
    used = server.memory_bytes() - before
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0.5)
    return used / streams
