"""Compares the fake with recorded answers of a real Ollama."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httptools
import httpx
import pytest

from tests.fake_ollama import (
    Connection,
    FakeOllama,
    Reply,
    Request,
    after,
    closes_before_head,
    error,
    never_answers,
    recorded,
    resets_before_head,
    stalls_after,
    tokens,
)
from tests.processes import fake_ollama
from tests.recorded import MANIFEST, STREAMS, Recorded

QUESTION = {"model": "smollm2:135m", "messages": [{"role": "user", "content": "hi"}]}


class _Answer:
    """An answer read from a socket, with its original chunks."""

    def __init__(self, method: str) -> None:
        self.headers: list[str] = []
        self.chunks: list[bytes] = []
        self.complete = False
        self.status = 0
        self._has_no_body = method == "HEAD"
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append(f"{name.decode()}: {value.decode()}")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.complete = self._has_no_body

    def on_body(self, body: bytes) -> None:
        self.chunks.append(body)

    def on_message_complete(self) -> None:
        self.complete = True


@asynccontextmanager
async def connected(
    fake: FakeOllama,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(fake.url).port)
    async with asyncio.timeout(5):
        yield reader, writer
    writer.close()


def message(method: str, path: str, body: object = None, **headers: str) -> bytes:
    """Return a request's bytes; a `body` of type str is sent verbatim."""
    text = body if isinstance(body, str) else json.dumps(body)
    content = b"" if body is None else text.encode()
    lines = {"Host": "localhost", **headers, "Content-Length": str(len(content))}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + content


async def read(reader: asyncio.StreamReader, method: str = "POST") -> _Answer:
    answer = _Answer(method)
    while not answer.complete and (data := await reader.read(65536)):
        answer.feed(data)
    return answer


async def ask(
    fake: FakeOllama, method: str, path: str, body: object = None, **headers: str
) -> _Answer:
    async with connected(fake) as (reader, writer):
        writer.write(message(method, path, body, **headers))
        return await read(reader, method)


async def question(fake: FakeOllama, **fields: object) -> _Answer:
    return await ask(fake, "POST", "/api/chat", {**QUESTION, **fields})


async def ask_as_recorded(fake: FakeOllama, name: str) -> _Answer:
    request = MANIFEST[name]
    headers = dict(request["headers"])
    if request["host"]:
        headers["Host"] = request["host"]
    return await ask(fake, request["method"], request["path"], request["body"], **headers)


def shape(value: object) -> object:
    """Return the ordered field names and the types of a JSON value."""
    if isinstance(value, dict):
        return [(name, shape(item)) for name, item in value.items()]
    return (
        type(value).__name__ if not isinstance(value, list) else [shape(item) for item in value[:1]]
    )


def headers_but_values(answer: _Answer) -> Iterator[str]:
    for header in answer.headers:
        yield header if not header.startswith(("Date", "Content-Length")) else header.split(":")[0]


def assert_alike(answer: _Answer, name: str) -> None:
    real = _Answer(MANIFEST[name]["method"])
    real.feed(Recorded(name).raw)
    assert answer.status == real.status
    assert list(headers_but_values(answer)) == list(headers_but_values(real))
    assert len(answer.chunks) == len(real.chunks)
    for chunk, real_chunk in zip(answer.chunks, real.chunks, strict=True):
        assert chunk.endswith(b"\n") == real_chunk.endswith(b"\n")
        if real_chunk.startswith(b"{"):
            assert shape(json.loads(chunk)) == shape(json.loads(real_chunk))
        else:
            assert chunk == real_chunk


@pytest.fixture
async def fake() -> AsyncIterator[FakeOllama]:
    async with FakeOllama(["smollm2:135m"]) as server:
        yield server


@pytest.mark.parametrize(
    "name",
    [
        "version",
        "version_head",
        "tags_one",
        "ps_empty",
        "chat_nonstream",
        "generate_nonstream",
        "generate_nonstream_context",
        "generate_context_empty_list",
        "generate_context_null",
        "generate_stream",
        "generate_stream_context",
        "generate_empty_prompt_load_cold",
        "generate_no_prompt_load_warm",
        "generate_keepalive0_unload",
        "keep_alive_0_with_prompt",
        "context_id_huge",
        "context_id_over_int64",
        "err_bad_json",
        "err_body_array",
        "err_body_empty",
        "err_no_body_no_length",
        "err_model_missing_404",
        "err_model_missing_404_nonstream",
        "err_model_field_absent",
        "err_model_empty",
        "err_unknown_route",
        "err_unknown_route_post",
        "err_wrong_method_get_generate",
        "err_wrong_method_put_generate",
        "err_wrong_method_post_tags",
        "err_version_post",
        "head_generate",
    ],
)
async def test_it_answers_as_the_recorded_server(fake: FakeOllama, name: str) -> None:
    assert_alike(await ask_as_recorded(fake, name), name)


@pytest.mark.parametrize(
    ("name", "reply"),
    [
        ("generate_stream_default", tokens(["a", "b", "c"], done_reason="length")),
        ("generate_raw_korean_stream", tokens(["한"] * 11, context=None)),
        ("chat_stream", tokens()),
        ("connection_close", tokens(["The", " phrase"])),
        (
            "concurrency_cold_503",
            error(503, "server busy, please try again.  maximum pending requests exceeded"),
        ),
    ],
)
async def test_it_answers_as_recorded_when_told(fake: FakeOllama, name: str, reply: Reply) -> None:
    fake.reply(reply, path=MANIFEST[name]["path"])
    assert_alike(await ask_as_recorded(fake, name), name)


@pytest.mark.parametrize("name", ["context_id_negative", "context_id_out_of_range"])
async def test_a_bad_context_id_ends_the_connection_without_an_answer(
    fake: FakeOllama, name: str
) -> None:
    answer = await ask_as_recorded(fake, name)
    assert (answer.status, answer.headers) == (0, [])
    assert Recorded(name).raw == b""


@pytest.mark.parametrize(
    "name",
    [
        "err_host_evil",
        "err_host_evil_generate",
        "host_hostname",
        "host_localhost",
        "host_private_ip",
        "host_internal_suffix",
    ],
)
async def test_it_checks_the_host_when_told(fake: FakeOllama, name: str) -> None:
    fake.check_host = True
    assert_alike(await ask_as_recorded(fake, name), name)


async def test_it_lists_the_models_it_is_given(fake: FakeOllama) -> None:
    fake.models = []
    assert_alike(await ask_as_recorded(fake, "tags_empty"), "tags_empty")
    fake.models = ["a:1b", "b:2b"]
    (body,) = (await ask(fake, "GET", "/api/tags")).chunks
    assert [model["name"] for model in json.loads(body)["models"]] == ["a:1b", "b:2b"]


async def test_it_finds_a_model_in_any_case_and_repeats_its_name(fake: FakeOllama) -> None:
    (body,) = (await ask_as_recorded(fake, "model_name_case")).chunks
    assert json.loads(body)["model"] == Recorded("model_name_case").lines[0]["model"]


async def test_it_lists_which_models_are_loaded(fake: FakeOllama) -> None:
    await question(fake)
    assert_alike(await ask(fake, "GET", "/api/ps"), "ps_loaded")
    await question(fake, keep_alive=0)
    assert_alike(await ask(fake, "GET", "/api/ps"), "ps_after_keep_alive_0_prompt")


async def test_it_streams_empty_answers_and_thinking(fake: FakeOllama) -> None:
    fake.reply(tokens([], final_text="!"), tokens(["a"], thinking=["hm", "so"]))
    (last,) = (await question(fake)).chunks
    assert json.loads(last)["message"]["content"] == "!"
    lines = [json.loads(chunk) for chunk in (await question(fake)).chunks]
    assert [line["message"].get("thinking") for line in lines] == ["hm", "so", None, None]


@pytest.mark.parametrize("name", MANIFEST)
async def test_a_recording_is_replayed_byte_for_byte(fake: FakeOllama, name: str) -> None:
    await assert_replayed(fake, name, 0)


@pytest.mark.parametrize("piece", [1, 7])
@pytest.mark.parametrize("name", ["generate_korean_stream", "server_killed_midstream_sigkill"])
async def test_a_recording_is_replayed_in_pieces(fake: FakeOllama, name: str, piece: int) -> None:
    await assert_replayed(fake, name, piece)


@pytest.mark.parametrize("name", STREAMS)
def test_a_recording_in_chat_form_says_the_same(name: str) -> None:
    original, chat = Recorded(name), Recorded(name, chat=True)
    assert (chat.status, chat.headers) == (original.status, original.headers)
    assert chat.raw.count(b"\n") == original.raw.count(b"\n")
    if MANIFEST[name]["path"] == "/api/generate":
        texts = [line["response"] for line in original.lines if "response" in line]
        assert texts == [line["message"]["content"] for line in chat.lines if "message" in line]


async def assert_replayed(fake: FakeOllama, name: str, piece: int) -> None:
    """Check the bytes, and that the connection stays open or closes as the original did."""
    fake.reply(recorded(name, piece), path="/api/generate")
    raw = Recorded(name).raw
    async with connected(fake) as (reader, writer):
        writer.write(message("POST", "/api/generate", QUESTION))
        assert await reader.readexactly(len(raw)) == raw
        if MANIFEST[name]["ended"] == "EOF":
            assert await reader.read() == b""
        else:
            writer.write(message("GET", "/api/version"))
            assert (await read(reader)).status == 200


async def test_it_reads_a_chunked_request_as_it_came(fake: FakeOllama) -> None:
    async with connected(fake) as (reader, writer):
        writer.write(
            b"POST /api/generate HTTP/1.1\r\nhOsT: a\r\nX-A: 1\r\nx-a: 2\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n3\r\n\xff\x00{\r\n1\r\n}\r\n0\r\n\r\n"
        )
        assert (await read(reader)).status == 400
    (request,) = fake.requests
    assert (request.method, request.path, request.body) == (
        "POST",
        "/api/generate",
        b"\xff\x00{}",
    )
    assert request.headers == [
        ("hOsT", "a"),
        ("X-A", "1"),
        ("x-a", "2"),
        ("Transfer-Encoding", "chunked"),
    ]
    assert request.received_at <= asyncio.get_running_loop().time()


async def test_connections_are_kept_alive_until_one_side_declines(fake: FakeOllama) -> None:
    async with connected(fake) as (reader, writer):
        for _ in range(2):
            writer.write(message("POST", "/api/chat", QUESTION))
            assert (await read(reader)).status == 200
        writer.write(message("POST", "/api/chat", QUESTION, Connection="close"))
        assert (await read(reader)).status == 200
        assert await reader.read() == b""
    assert fake.connections == 1
    assert [request.connection for request in fake.requests] == [1, 1, 1]


async def floods(connection: Connection, request: Request) -> None:
    """Send more than any socket buffers, then stall."""
    connection.send_head()
    connection.send_chunk(bytes(2**26))
    await connection.hang()


@pytest.mark.parametrize("leave", ["close", "abort", "write_eof"])
@pytest.mark.parametrize(
    "reply",
    [never_answers, stalls_after(1), tokens(pace_s=60), floods],
    ids=["silent", "stalled", "asleep", "blocked"],
)
async def test_it_notices_a_disconnect_at_once(fake: FakeOllama, reply: Reply, leave: str) -> None:
    fake.reply(reply)
    async with connected(fake) as (_, writer):
        writer.write(message("POST", "/api/chat", QUESTION))
        request = await fake.wait_for(1)
        await asyncio.sleep(0.05)
        assert not request.disconnected.is_set()
        left_at = asyncio.get_running_loop().time()
        getattr(writer.transport if leave == "abort" else writer, leave)()
        async with asyncio.timeout(10):
            await request.disconnected.wait()
    assert request.disconnected_at is not None
    assert left_at <= request.disconnected_at < left_at + 10


async def test_closing_after_a_whole_answer_or_the_fakes_own_close_is_no_disconnect(
    fake: FakeOllama,
) -> None:
    await question(fake)
    fake.reply(never_answers)
    async with connected(fake) as (reader, writer):
        writer.write(message("POST", "/api/chat", QUESTION))
        await fake.wait_for(2)
        fake.drop_connections()
        assert await reader.read() == b""
    await fake.stop()
    assert not any(request.disconnected.is_set() for request in fake.requests)


@pytest.mark.parametrize("reply", [resets_before_head, after(2, Connection.reset)])
async def test_it_resets_a_connection(fake: FakeOllama, reply: Reply) -> None:
    fake.reply(reply)
    with pytest.raises(ConnectionResetError):
        await question(fake)


async def test_a_mistake_in_a_reply_does_not_leave_the_client_waiting(
    fake: FakeOllama, caplog: pytest.LogCaptureFixture
) -> None:
    async def mistaken(connection: Connection, request: Request) -> None:
        raise KeyError("a mistake")

    fake.reply(mistaken)
    assert (await question(fake)).status == 0
    assert "a mistake" in caplog.text


async def test_it_drops_only_idle_connections(fake: FakeOllama) -> None:
    async with connected(fake) as (idle, to_idle), connected(fake) as (_, to_busy):
        to_idle.write(message("GET", "/api/version"))
        await read(idle)
        fake.reply(never_answers)
        to_busy.write(message("POST", "/api/chat", QUESTION))
        busy = await fake.wait_for(1)
        fake.drop_idle_connections()
        assert await idle.read() == b""
        assert [connection.number for connection in fake.open] == [busy.connection]


async def test_it_stops_listening_and_comes_back_on_its_port(fake: FakeOllama) -> None:
    url = fake.url
    async with connected(fake) as (reader, writer):
        writer.write(message("GET", "/api/version"))
        assert (await read(reader)).status == 200
        fake.stop_listening()
        with pytest.raises(OSError, match="Connect"):
            await question(fake)
        writer.write(message("GET", "/api/version"))
        assert (await read(reader)).status == 200
        await fake.stop()
        assert await reader.read() == b""
    await fake.start()
    assert fake.url == url
    assert (await question(fake)).status == 200


async def test_ordered_replies_are_used_once_and_in_order(fake: FakeOllama) -> None:
    fake.reply(closes_before_head, error(500, "no"))
    assert [(await question(fake)).status for _ in range(3)] == [0, 500, 200]


def test_it_runs_as_a_process() -> None:
    with fake_ollama("--pace", "0", "--tokens", "Ask me") as url:
        answer = httpx.post(f"{url}/api/chat", json=QUESTION, trust_env=False)
    texts = [json.loads(line)["message"]["content"] for line in answer.content.splitlines()]
    assert texts == ["Ask", " me", ""]


def test_there_are_recorded_streams() -> None:
    assert len(STREAMS) > 10
