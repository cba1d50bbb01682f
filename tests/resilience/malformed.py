"""Malformed requests; each must get a 4xx in the API's error shape."""

import asyncio
import json
import random
from collections.abc import Callable

from tests.resilience.asking import MODEL, Outcome, Tally

LIMIT_S = 25
"""A head that never ends is refused after 20 s."""
CHAT = {"model": MODEL, "message": "1 - 0"}


def post(body: bytes, *headers: str, path: str = "/api/chat", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        f"Content-Length: {size}",
        *(headers or ("Content-Type: application/json",)),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def with_field(name: str, value: object) -> bytes:
    return post(json.dumps({**CHAT, name: value}).encode())


def cut_json(chance: random.Random) -> bytes:
    text = json.dumps(CHAT).encode()
    return post(text[: chance.randrange(len(text))])


def wrong_type(chance: random.Random) -> bytes:
    name = chance.choice(["message", "stream", "context", "options", "images", "model"])
    return with_field(name, chance.choice([5.5, {"x": 1}, [{}], [None]]))


def wrong_option(chance: random.Random) -> bytes:
    name = chance.choice(
        ["temperature", "top_k", "top_p", "seed", "num_ctx", "stop", "num_predict"]
    )
    return with_field("options", {name: chance.choice(["x", 1e300, [1], {"a": 1}, None])})


def not_utf8(chance: random.Random) -> bytes:
    return post(b'{"message":"' + bytes([chance.randrange(0x80, 0xC0)]) + b'"}')


def wrong_media(chance: random.Random) -> bytes:
    return post(json.dumps(CHAT).encode(), f"Content-Type: {chance.choice(['text/plain', 'x/y'])}")


def wrong_path(chance: random.Random) -> bytes:
    return post(b"{}", path=f"/api/{chance.getrandbits(32):x}")


def wrong_method(chance: random.Random) -> bytes:
    method = chance.choice(["PUT", "DELETE", "PATCH"])
    return post(b"{}").replace(b"POST", method.encode(), 1)


def no_http(chance: random.Random) -> bytes:
    return chance.randbytes(chance.randrange(1, 200)) + b"\r\n\r\n"


def wrong_head(chance: random.Random) -> bytes:
    line = chance.choice(["Bad Name: x", "Content-Length: -1", "Transfer-Encoding: gzip"])
    return b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\n" + line.encode() + b"\r\n\r\n"


def wrong_chunk(chance: random.Random) -> bytes:
    head = post(b"", "Transfer-Encoding: chunked", "Content-Type: application/json")
    return head.replace(b"Content-Length: 0\r\n", b"") + b"zz\r\n" + chance.randbytes(8)


def large_head(chance: random.Random) -> bytes:
    return post(b"{}", "X: " + "x" * chance.randrange(70_000, 200_000))


KINDS: list[Callable[[random.Random], bytes]] = [
    cut_json,
    wrong_type,
    wrong_option,
    not_utf8,
    wrong_media,
    wrong_path,
    wrong_method,
    no_http,
    wrong_head,
    wrong_chunk,
    large_head,
]


async def send(host: str, port: int, data: bytes) -> bytes:
    """Send `data` on its own connection, and return everything that comes back."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(data)
        answer = b""
        while piece := await reader.read(65_536):
            answer += piece
        return answer
    finally:
        writer.close()


def judge(answer: bytes) -> Outcome:
    """Return whether this is one complete 4xx or 501 in the API's shape."""
    if not answer:
        return Outcome.LOST
    head, _, body = answer.partition(b"\r\n\r\n")
    try:
        told = json.loads(body)
    except ValueError:
        return Outcome.WRONG
    is_right = head.startswith((b"HTTP/1.1 4", b"HTTP/1.1 501 ")) and set(told) == {
        "success",
        "error",
    }
    return Outcome.RIGHT_ERROR if is_right and told["success"] is False else Outcome.WRONG


async def send_all(host: str, port: int, count: int, tally: Tally) -> None:
    """Send `count` malformed requests, and record each outcome."""
    chance = random.Random(13)  # noqa: S311
    upcoming = iter([KINDS[index % len(KINDS)](chance) for index in range(count)])

    async def work() -> None:
        for data in upcoming:
            answer = b""
            try:
                async with asyncio.timeout(LIMIT_S):
                    answer = await send(host, port, data)
                outcome = judge(answer)
            except TimeoutError:
                outcome = Outcome.HUNG
            except OSError:  # reset while it was still sending, or before it had read all
                outcome = Outcome.LOST
            tally.note(outcome, f"{data[:200]!r} -> {answer[-200:]!r}")

    await asyncio.gather(*(work() for _ in range(16)))
