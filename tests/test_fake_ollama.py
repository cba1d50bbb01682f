"""The fake is held against what a real Ollama answered."""

import asyncio
import json
from collections.abc import Iterator

import httptools
import httpx
import pytest

from tests.fake_ollama import (
    FakeOllama,
    Reply,
    closes_before_head,
    error,
    recorded,
    stalls_after,
    tokens,
)
from tests.recorded import MANIFEST, STREAMS, Recorded


class _Answer:
    """An answer read from a socket, with the chunks as they were cut."""

    def __init__(self) -> None:
        self.headers: list[str] = []
        self.chunks: list[bytes] = []
        self.complete = False
        self.status = 0
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append(f"{name.decode()}: {value.decode()}")

    def on_body(self, body: bytes) -> None:
        self.chunks.append(body)

    def on_message_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.complete = True


async def ask(url: str, method: str, path: str, body: object = None) -> _Answer:
    parsed = httpx.URL(url)
    reader, writer = await asyncio.open_connection(parsed.host, parsed.port)
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {parsed.host}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    writer.write(head.encode() + content)
    answer = _Answer()
    while not answer.complete and (data := await reader.read(65536)):
        answer.feed(data)
    writer.close()
    return answer


def shape(value: object) -> object:
    """The field names in their order, and the types, of a JSON value."""
    if isinstance(value, dict):
        return [(name, shape(item)) for name, item in value.items()]
    return (
        type(value).__name__ if not isinstance(value, list) else [shape(item) for item in value[:1]]
    )


def from_recording(name: str) -> _Answer:
    answer = _Answer()
    answer.feed(Recorded(name).raw)
    return answer


def headers_but_values(answer: _Answer) -> Iterator[str]:
    for header in answer.headers:
        yield header if not header.startswith(("Date", "Content-Length")) else header.split(":")[0]


@pytest.mark.parametrize(
    ("name", "method", "path", "body", "reply"),
    [
        ("version", "GET", "/api/version", None, None),
        ("tags_one", "GET", "/api/tags", None, None),
        ("generate_nonstream", "POST", "/api/generate", {"stream": False}, None),
        ("generate_stream", "POST", "/api/generate", {}, None),
        ("generate_empty_prompt_load_cold", "POST", "/api/generate", {"prompt": ""}, None),
        ("err_model_missing_404", "POST", "/api/generate", {"model": "x"}, None),
        ("err_unknown_route", "GET", "/api/nope", None, None),
        ("err_wrong_method_get_generate", "GET", "/api/generate", None, None),
        (
            "concurrency_cold_503",
            "POST",
            "/api/generate",
            {},
            error(503, "server busy, please try again.  maximum pending requests exceeded"),
        ),
        ("generate_stream_default", "POST", "/api/generate", {}, tokens(["a", "b", "c"])),
    ],
)
async def test_the_fake_answers_as_the_recorded_server(
    fake: FakeOllama,
    name: str,
    method: str,
    path: str,
    body: dict[str, object] | None,
    reply: Reply | None,
) -> None:
    fake.models = ["smollm2:135m"]
    if reply:
        fake.reply(reply)
    if body is not None:
        body = {"model": "smollm2:135m", "prompt": "hi", **body}
    real, answer = from_recording(name), await ask(fake.url, method, path, body)
    assert answer.status == real.status
    assert list(headers_but_values(answer)) == list(headers_but_values(real))
    assert len(answer.chunks) == len(real.chunks)
    for chunk, real_chunk in zip(answer.chunks, real.chunks, strict=True):
        assert chunk.endswith(b"\n") == real_chunk.endswith(b"\n")
        if real_chunk.startswith(b"{"):
            assert shape(json.loads(chunk)) == shape(json.loads(real_chunk))
        else:
            assert chunk == real_chunk


@pytest.mark.parametrize("piece", [0, 1, 7])
@pytest.mark.parametrize("name", ["generate_korean_stream", "server_killed_midstream_sigkill"])
async def test_a_recording_is_replayed_byte_for_byte(
    fake: FakeOllama, name: str, piece: int
) -> None:
    fake.reply(recorded(name, piece))
    parsed = httpx.URL(fake.url)
    reader, writer = await asyncio.open_connection(parsed.host, parsed.port)
    writer.write(b"POST /api/generate HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
    raw = Recorded(name).raw
    assert await reader.readexactly(len(raw)) == raw
    if MANIFEST[name]["ended"] == "EOF":
        assert await reader.read() == b""
    writer.close()


async def test_a_bad_context_id_ends_the_connection_without_a_word(fake: FakeOllama) -> None:
    body = {"model": "smollm2:135m", "prompt": "hi", "context": [60000]}
    answer = await ask(fake.url, "POST", "/api/generate", body)
    assert (answer.status, answer.headers) == (0, [])
    assert Recorded("context_id_out_of_range").raw == b""


async def test_it_sees_at_once_that_a_client_has_gone(fake: FakeOllama) -> None:
    fake.reply(stalls_after(1))
    parsed = httpx.URL(fake.url)
    reader, writer = await asyncio.open_connection(parsed.host, parsed.port)
    body = b'{"model":"smollm2:135m","prompt":"hi"}'
    writer.write(b"POST /api/generate HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    await reader.readuntil(b"\n\r\n")
    request = await fake.wait_for(1)
    assert not request.disconnected.is_set()
    writer.close()
    async with asyncio.timeout(1):
        await request.disconnected.wait()


async def test_it_stops_and_comes_back_on_its_port(fake: FakeOllama) -> None:
    url = fake.url
    await fake.stop()
    with pytest.raises(OSError, match="Connect"):
        await ask(url, "GET", "/api/version")
    await fake.start()
    assert (await ask(url, "GET", "/api/version")).status == 200


async def test_orders_are_carried_out_once_and_in_turn(fake: FakeOllama) -> None:
    fake.reply(closes_before_head, error(500, "no"))
    body = {"model": "smollm2:135m", "prompt": "hi"}
    statuses = [(await ask(fake.url, "POST", "/api/generate", body)).status for _ in range(3)]
    assert statuses == [0, 500, 200]


def test_there_are_recorded_streams() -> None:
    assert len(STREAMS) > 10
