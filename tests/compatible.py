"""Recorded answers of the compatible paths, whole and broken in every way."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from core.keys.records import digest
from tests.fake_ollama import (
    Connection,
    Reply,
    Request,
    closes_before_head,
    error,
    resets_before_head,
    whole,
)
from tests.recorded import Recorded

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
RESPONSES, MESSAGES, EMBEDDINGS = "/v1/responses", "/v1/messages", "/v1/embeddings"
MODEL = "smollm2:135m"
QUESTION: Any = [{"role": "user", "content": "안녕하세요!"}]
LARGE_BYTES = 5 * 2**20

KEY = "owa_0123abcd_for-tests"
STORED = {"name": "sdk", "id": "0123abcd", "sha256": digest(KEY), "created": "2026-01-01T00:00:00Z"}
KEYS = json.dumps([STORED])
HEADERS = {"X-API-Key": KEY}

PLAIN = {
    CHAT: "chat",
    COMPLETIONS: "completions",
    RESPONSES: "responses",
    MESSAGES: "messages",
    EMBEDDINGS: "embeddings",
}
STREAMS = {
    CHAT: "chat_stream_usage",
    COMPLETIONS: "completions_stream",
    RESPONSES: "responses_stream",
    MESSAGES: "messages_stream",
}
LAST = {
    CHAT: b"data: [DONE]",
    COMPLETIONS: b"data: [DONE]",
    RESPONSES: b"event: response.completed",
    MESSAGES: b"event: message_stop",
}
KILLED = {
    CHAT: "chat_stream_runner_killed",
    RESPONSES: "responses_stream_runner_killed",
    MESSAGES: "messages_stream_runner_killed",
}
"""What Ollama sent when its runner was killed, and how it ended that."""

# The first text of a stream, in whichever field its path has it.
_TEXT = re.compile(rb'("(?:content|delta|text)":")[^"]+')


def replayed(name: str, piece: int = 0) -> Reply:
    """Replay a recorded body in chunks of `piece` bytes, then end it."""
    recording = Recorded(f"v1/{name}")

    async def reply(connection: Connection, request: Request) -> None:
        content_type = recording.headers["Content-Type"]
        if "Transfer-Encoding" not in recording.headers:
            connection.send(recording.status, content_type, recording.body)
            return
        connection.send_raw(connection._head(200, content_type, (), None).encode())
        size = piece or len(recording.body)
        for start in range(0, len(recording.body), size):
            connection.send_chunk(recording.body[start : start + size])
            if piece:
                await asyncio.sleep(0)
        connection.send_end()

    return reply


def streamed(
    body: bytes, end: Callable[[Connection], Any] = Connection.send_end, *, packet: int = 0
) -> Reply:
    """Send `body` as a stream of events, in packets of `packet` bytes if given, then do `end`."""

    async def reply(connection: Connection, request: Request) -> None:
        head = connection._head(200, "text/event-stream", (), None).encode()
        data = b"%b%x\r\n%b\r\n" % (head, len(body), body)
        size = packet or len(data)
        for start in range(0, len(data), size):
            connection.send_raw(data[start : start + size])
            await asyncio.sleep(0)
        await asyncio.sleep(0.02)
        ending = end(connection)
        if isinstance(ending, Awaitable):
            await ending

    return reply


def cut(
    name: str, at: float | bytes, end: Callable[[Connection], Any], *, packet: int = 0
) -> Reply:
    """Replay a recorded stream up to a fraction of it or a text, then do `end`."""
    body = Recorded(f"v1/{name}").body
    where = body.rindex(at) if isinstance(at, bytes) else int(len(body) * at)
    return streamed(body[:where], end, packet=packet)


def with_large_event(path: str) -> bytes:
    """Return the stream recorded for `path`, with a text of 5 MB in one of its events."""
    body = Recorded(f"v1/{STREAMS[path]}").body
    return _TEXT.sub(rb"\1" + "한".encode() * (LARGE_BYTES // 3), body, count=1)


def text_of(body: bytes) -> str:
    """Return the text in a stream of events."""
    text = ""
    for event in body.split(b"\n\n"):
        data = event[event.find(b"data: ") + 6 :]
        if not data.startswith(b"{"):
            continue
        value = json.loads(data)
        choices = value.get("choices") or [{}]
        delta = value.get("delta") or choices[0].get("delta", "") or choices[0].get("text", "")
        if isinstance(delta, dict):
            delta = delta.get("text") or delta.get("content") or ""
        text += delta
    return text


WHOLE: dict[str, Callable[[str], bytes]] = {
    "an event of 5 MB": with_large_event,
    "one byte a packet": lambda path: Recorded(f"v1/{STREAMS[path]}").body,
}
"""Streams that are unusual, and complete."""


def whole_stream(name: str, path: str) -> Reply:
    """Return the reply with a stream of `WHOLE`."""
    return streamed(WHOLE[name](path), packet=1 if name == "one byte a packet" else 0)


def _cut_before_blank_line(path: str) -> Reply:
    """End in an event that lacks only the blank line after it."""
    body = Recorded(f"v1/{STREAMS[path]}").body
    last = body.rindex(b"\n\n", 0, body.rindex(LAST[path]) - 2) + 1
    return streamed(body[:last])


def _cut_in_large_event(path: str) -> Reply:
    body = with_large_event(path)
    return streamed(body[: len(body) // 2])


FAULTS: dict[str, Callable[[str], Reply]] = {
    "no head": lambda path: closes_before_head,
    "clean end without a last event": lambda path: cut(
        STREAMS[path], LAST[path], Connection.send_end
    ),
    "end in mid-event, before its blank line": _cut_before_blank_line,
    "end in mid-line": lambda path: cut(STREAMS[path], 0.6, Connection.send_end),
    "closed in mid-line": lambda path: cut(STREAMS[path], 0.6, Connection.close),
    "reset in mid-line": lambda path: cut(STREAMS[path], 0.6, Connection.reset),
    "end in mid-line, one byte a packet": lambda path: cut(
        STREAMS[path], 0.6, Connection.send_end, packet=1
    ),
    "end in an event of 5 MB": _cut_in_large_event,
    "garbage in place of a chunk": lambda path: cut(
        STREAMS[path], 0.6, lambda connection: connection.send_raw(b"zz\r\n")
    ),
    "an error event": lambda path: cut(
        STREAMS[path],
        LAST[path],
        lambda connection: connection.send_chunk(
            b'data: {"error":{"message":"out of memory","type":"api_error"}}\n\n'
        ),
    ),
}

PLAIN_FAULTS: dict[str, Reply] = {
    "no head": closes_before_head,
    "reset before the head": resets_before_head,
    "a crash": error(500, "llama runner process has terminated"),
    "no answer of Ollama": whole(200, "text/html", b"<html>"),
    "an empty object": whole(200, "application/json", b"{}"),
    "an unfinished answer": whole(
        200,
        "application/json",
        b'{"choices":[{"finish_reason":null}],"stop_reason":null,"status":"in_progress"}',
    ),
}
