"""The compatible paths, as OpenAI's and Anthropic's own SDKs see them."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from core.ollama.connection import (
    ConnectFailed,
    ConnectionBroken,
    ConnectTimeout,
    Header,
    UpstreamError,
)
from core.ollama.pool import Body, Pool
from tests.compatible import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    FAULTS,
    HEADERS,
    KEY,
    KEYS,
    MESSAGES,
    MODEL,
    PLAIN,
    PLAIN_FAULTS,
    QUESTION,
    RESPONSES,
    STREAMS,
    WHOLE,
    replayed,
    text_of,
    whole_stream,
)
from tests.conftest import Serve
from tests.fake_ollama import Connection, FakeOllama, Reply, Request, error, never_answers, whole
from tests.leaving import LEAVABLE, PATIENCE_S, seconds_until_freed
from tests.recorded import Recorded


class Clients:
    opened: list["Clients"] = []  # noqa: RUF012 - closed by `close_all` after each test

    def __init__(self, url: str, key: str = KEY, retries: int = 0) -> None:
        self.openai = openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key=key, max_retries=retries, timeout=20
        )
        self.anthropic = anthropic.AsyncAnthropic(
            base_url=url, api_key=key, max_retries=retries, timeout=20
        )

        self.opened.append(self)

    async def close(self) -> None:
        await self.openai.close()
        await self.anthropic.close()

    async def plain(self, path: str) -> Any:
        if path == CHAT:
            return await self.openai.chat.completions.create(model=MODEL, messages=QUESTION)
        if path == COMPLETIONS:
            return await self.openai.completions.create(model=MODEL, prompt="Paris")
        if path == RESPONSES:
            return await self.openai.responses.create(model=MODEL, input="안녕하세요!")
        if path == MESSAGES:
            return await self.anthropic.messages.create(
                model=MODEL, messages=QUESTION, max_tokens=16
            )
        return await self.openai.embeddings.create(model=MODEL, input=["a", "b"])

    async def stream(self, path: str) -> AsyncIterator[Any]:
        stream: Any
        if path == CHAT:
            stream = await self.openai.chat.completions.create(
                model=MODEL, messages=QUESTION, stream=True
            )
        elif path == COMPLETIONS:
            stream = await self.openai.completions.create(model=MODEL, prompt="Paris", stream=True)
        elif path == RESPONSES:
            stream = await self.openai.responses.create(model=MODEL, input="hi", stream=True)
        else:
            stream = await self.anthropic.messages.create(
                model=MODEL, messages=QUESTION, max_tokens=16, stream=True
            )
        async for event in stream:
            yield event


@pytest.fixture(autouse=True)
async def close_all() -> AsyncIterator[None]:
    yield
    while Clients.opened:
        await Clients.opened.pop().close()


@pytest.fixture
async def clients(serve: Serve) -> Clients:
    return Clients(await serve(api_keys=KEYS, default_model=MODEL, rate_limit="off"))


@pytest.mark.parametrize("path", PLAIN)
async def test_a_plain_answer_arrives_as_ollama_gave_it(
    fake: FakeOllama, clients: Clients, path: str
) -> None:
    fake.reply(replayed(PLAIN[path]), path=path)
    answer = await clients.plain(path)
    given = json.loads(Recorded(f"v1/{PLAIN[path]}").body)
    if path == EMBEDDINGS:
        assert [len(entry.embedding) for entry in answer.data] == [
            len(entry["embedding"]) for entry in given["data"]
        ]
    else:
        assert answer.id == given["id"]
    (request,) = fake.asked(path)
    assert request.json["model"] == MODEL
    names = {name.lower() for name, _ in request.headers}
    assert not names & {"authorization", "x-api-key", "cookie", "origin"}


@pytest.mark.parametrize("piece", [0, 1, 7, 1000])
@pytest.mark.parametrize("path", STREAMS)
async def test_a_stream_arrives_as_ollama_gave_it(
    fake: FakeOllama, serve: Serve, path: str, piece: int
) -> None:
    fake.reply(replayed(STREAMS[path], piece), path=path)
    url = await serve(api_keys=KEYS, default_model=MODEL)
    body = {"stream": True, "stream_options": {"include_usage": True}}
    async with httpx.AsyncClient(base_url=url) as client:
        answer = await client.post(path, json=body)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.content == Recorded(f"v1/{STREAMS[path]}").body


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("path", STREAMS)
async def test_an_unusual_stream_arrives_as_ollama_gave_it(
    fake: FakeOllama, serve: Serve, path: str, name: str
) -> None:
    fake.reply(whole_stream(name, path), path=path)
    url = await serve(api_keys=KEYS, default_model=MODEL)
    body = {"stream": True, "stream_options": {"include_usage": True}}
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        answer = await client.post(path, json=body)
    assert answer.content == WHOLE[name](path)
    assert name != "an event of 5 MB" or len(text_of(answer.content).encode()) > 5_000_000


@pytest.mark.parametrize("path", STREAMS)
async def test_a_whole_stream_ends_without_an_error(
    fake: FakeOllama, clients: Clients, path: str
) -> None:
    fake.reply(replayed(STREAMS[path]), path=path)
    events = [event async for event in clients.stream(path)]
    assert len(events) > 3
    if path == CHAT:
        assert all(event.choices for event in events), "nobody asked for the usage"


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("path", STREAMS)
async def test_a_broken_stream_is_an_error_of_the_sdk(
    fake: FakeOllama, clients: Clients, path: str, fault: str
) -> None:
    fake.reply(FAULTS[fault](path), path=path)
    expected = anthropic.APIError if path == MESSAGES else openai.APIError
    events = []
    with pytest.raises(expected, match="Ollama connection error"):
        events += [event async for event in clients.stream(path)]
    assert len(fake.asked(path)) == 1


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (CHAT, "chat_stream_runner_killed"),
        (CHAT, "chat_stream_repeat_abort"),
        (RESPONSES, "responses_stream_runner_killed"),
        (MESSAGES, "messages_stream_runner_killed"),
    ],
)
async def test_a_killed_runner_is_not_the_end_of_an_answer(
    fake: FakeOllama, clients: Clients, path: str, name: str
) -> None:
    fake.reply(replayed(name), path=path)
    expected = anthropic.APIError if path == MESSAGES else openai.APIError
    with pytest.raises(expected, match="ended before it was complete"):
        _ = [event async for event in clients.stream(path)]


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("fault", PLAIN_FAULTS)
@pytest.mark.parametrize("path", PLAIN)
async def test_a_plain_answer_that_is_not_whole_is_a_500_and_not_asked_for_again(
    fake: FakeOllama, serve: Serve, path: str, fault: str, retries: int
) -> None:
    fake.reply(PLAIN_FAULTS[fault], path=path)
    clients = Clients(await serve(api_keys=KEYS, default_model=MODEL), retries=retries)
    sdk: Any = anthropic if path == MESSAGES else openai
    with pytest.raises(sdk.InternalServerError, match="Ollama connection error") as caught:
        await clients.plain(path)
    assert caught.value.status_code == 500
    assert len(fake.asked(path)) == 1, "an SDK ran the model twice"


@pytest.mark.parametrize(
    "busy",
    [
        error(503, "server busy, please try again.  maximum pending requests exceeded"),
        whole(429, "text/html", b"<h1>429 Too Many Requests</h1>"),
    ],
    ids=["Ollama", "a relay"],
)
async def test_a_busy_ollama_is_asked_again(
    fake: FakeOllama, serve: Serve, monkeypatch: pytest.MonkeyPatch, busy: Reply
) -> None:
    monkeypatch.setattr("core.ollama.failures.BUSY_RETRY_AFTER_S", 1)
    fake.reply(busy, replayed("chat"), path=CHAT)
    clients = Clients(await serve(api_keys=KEYS, default_model=MODEL), retries=1)
    assert (await clients.plain(CHAT)).choices[0].finish_reason == "stop"


@pytest.mark.parametrize("path", [*PLAIN, "/v1/models"])
async def test_a_stranger_gets_the_sdk_s_own_error(serve: Serve, path: str) -> None:
    clients = Clients(await serve(api_keys=KEYS), key="owa_wrong")
    sdk: Any = anthropic if path == MESSAGES else openai
    with pytest.raises(sdk.AuthenticationError, match=r"Invalid credentials.*core\.keys create"):
        await (clients.openai.models.list() if path == "/v1/models" else clients.plain(path))


@pytest.mark.parametrize("path", PLAIN)
async def test_a_missing_model_is_a_404(fake: FakeOllama, clients: Clients, path: str) -> None:
    name = {MESSAGES: "messages_missing", EMBEDDINGS: "embeddings_missing"}.get(
        path, "chat_missing_model"
    )
    fake.reply(replayed(name), path=path)
    sdk: Any = anthropic if path == MESSAGES else openai
    with pytest.raises(sdk.NotFoundError, match=f"Model '{MODEL}' is not installed") as raised:
        await clients.plain(path)
    assert f"Installed models: {', '.join(fake.models)}. To" in str(raised.value)


@pytest.mark.parametrize("path", PLAIN)
async def test_a_path_that_this_ollama_lacks_is_a_404_that_says_so(
    fake: FakeOllama, serve: Serve, path: str
) -> None:
    fake.reply(whole(404, "text/plain", b"404 page not found"), path=path)
    clients = Clients(await serve(api_keys=KEYS, default_model=MODEL), retries=2)
    sdk: Any = anthropic if path == MESSAGES else openai
    with pytest.raises(sdk.NotFoundError, match=f"has no {path}. Update it, or use"):
        await clients.plain(path)
    assert len(fake.asked(path)) == 1


async def test_statuses_are_the_sdk_s_exceptions(fake: FakeOllama, serve: Serve) -> None:
    url = await serve(
        api_keys=KEYS, default_model=MODEL, rate_limit="2/minute", request_timeout_s=0.3
    )
    clients = Clients(url)
    fake.reply(never_answers, path=CHAT)
    with pytest.raises(openai.InternalServerError, match=r"Request timeout.* max_tokens") as late:
        await clients.plain(CHAT)
    assert late.value.status_code == 504
    assert late.value.response.headers["x-should-retry"] == "false"
    with pytest.raises(openai.BadRequestError, match="n: only 1"):
        await clients.openai.chat.completions.create(model=MODEL, messages=QUESTION, n=2)
    with pytest.raises(openai.RateLimitError, match="Too many requests") as limited:
        await clients.plain(CHAT)
    assert limited.value.code == "rate_limit_exceeded"
    assert int(limited.value.response.headers["retry-after"]) > 0
    assert "x-should-retry" not in limited.value.response.headers


@pytest.mark.parametrize(
    ("failure", "has_run"),
    [(ConnectFailed, False), (ConnectTimeout, False), (ConnectionBroken, True)],
)
async def test_only_what_may_have_run_is_not_to_be_tried_again(
    fake: FakeOllama,
    clients: Clients,
    monkeypatch: pytest.MonkeyPatch,
    failure: type[UpstreamError],
    has_run: bool,
) -> None:
    send = Pool.send

    async def failing(pool: Pool, request: bytes) -> tuple[int, list[Header], Body]:
        if request.startswith(b"POST /v1/"):
            raise failure("it failed")
        return await send(pool, request)

    monkeypatch.setattr(Pool, "send", failing)
    with pytest.raises(openai.InternalServerError) as raised:
        await clients.plain(CHAT)
    assert ("x-should-retry" in raised.value.response.headers) == has_run


async def test_unknown_paths_and_methods_have_the_shape_of_their_api(clients: Clients) -> None:
    url = str(clients.openai.base_url)
    async with httpx.AsyncClient() as client:
        unknown = await client.get(f"{url}nope")
        wrong = await client.get(f"{url}messages")
        root = await client.get(url.rstrip("/"))
    assert root.json()["error"].keys() == {"message", "type", "param", "code"}
    assert unknown.status_code == 404
    assert unknown.json()["error"].keys() == {"message", "type", "param", "code"}
    assert unknown.json()["error"]["code"] is None
    available = unknown.json()["error"]["message"].partition(". Available: ")[2].split(", ")
    assert "POST /v1/chat/completions" in available
    assert "GET /v1/models/{model}" in available
    assert all(" /v1/" in endpoint for endpoint in available)
    assert wrong.status_code == 405
    assert wrong.json()["type"] == "error"


@pytest.mark.parametrize("wrong", ["", "/api"])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS])
async def test_an_unknown_path_outside_v1_has_the_shape_that_the_contract_promises(
    clients: Clients, wrong: str, path: str
) -> None:
    url = str(clients.openai.base_url).removesuffix("/v1/")
    async with httpx.AsyncClient() as client:
        answer = await client.post(url + path.replace("/v1", wrong), json={})
    assert answer.status_code == 404
    body = answer.json()
    assert set(body) == {"success", "error"}
    assert body["error"].startswith("Unknown endpoint")
    assert "The base URL of OpenAI's SDKs must end in /v1. Available: " in body["error"]


async def test_a_wrong_base_url_gets_advice(serve: Serve) -> None:
    url = await serve(api_keys=KEYS, default_model=MODEL)
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        with pytest.raises(openai.NotFoundError) as lacking:
            _ = [model async for model in client.models.list()]
        assert "base URL of OpenAI's SDKs must end in /v1." in str(lacking.value.body)
    whole = f"{url}{CHAT}"
    async with openai.AsyncOpenAI(base_url=whole, api_key=KEY, max_retries=0) as client:
        with pytest.raises(openai.NotFoundError, match="OpenAI's SDKs must end in /v1"):
            await client.chat.completions.create(model=MODEL, messages=QUESTION)
    async with anthropic.AsyncAnthropic(base_url=f"{url}/v1", api_key=KEY) as other:
        with pytest.raises(anthropic.NotFoundError, match="Anthropic's SDKs must have no path"):
            await other.messages.create(model=MODEL, messages=QUESTION, max_tokens=16)
    async with httpx.AsyncClient(base_url=url, headers=HEADERS) as http:
        assert "SDKs" not in (await http.get("/v1/nope")).text


async def test_the_models_are_those_that_the_client_may_use(
    fake: FakeOllama, clients: Clients
) -> None:
    assert [model.id async for model in clients.openai.models.list()] == fake.models
    assert (await clients.openai.models.retrieve(MODEL)).id == MODEL
    assert (await clients.openai.models.retrieve(MODEL.upper())).id == MODEL
    fake.models.append("hf.co/someone/Small-GGUF:Q4_K_M")
    for name in (fake.models[-1], fake.models[-1].lower()):
        assert (await clients.openai.models.retrieve(name)).id == fake.models[-1]
    async with httpx.AsyncClient(headers=HEADERS) as client:
        with_slash = await client.get(f"{clients.openai.base_url}models/")
    assert [entry["id"] for entry in with_slash.json()["data"]] == fake.models
    with pytest.raises(openai.NotFoundError, match=f"Installed models: {', '.join(fake.models)}"):
        await clients.openai.models.retrieve("nope:1b")


@pytest.mark.parametrize("has_begun", [True, False])
@pytest.mark.parametrize("path", LEAVABLE)
async def test_a_client_that_leaves_frees_the_gpu(
    fake: FakeOllama, serve: Serve, path: str, has_begun: bool
) -> None:
    url = await serve(default_model=MODEL, max_concurrent=1)
    for _ in range(2):  # the second one needs the slot of the first
        assert await seconds_until_freed(fake, url, path, has_begun=has_begun) < PATIENCE_S


async def test_every_client_gets_its_own_answer(fake: FakeOllama, serve: Serve) -> None:
    async def echo(connection: Connection, request: Request) -> None:
        await fake.wait_for(3, CHAT)  # until all of them are being answered
        message = {"message": request.json["messages"][0], "finish_reason": "stop"}
        connection.send_json(200, {"choices": [message]})

    url = await serve(default_model=MODEL, max_concurrent=2)
    fake.reply(replayed("chat"), echo, echo, path=CHAT)
    async with asyncio.timeout(20), httpx.AsyncClient(base_url=url) as client:
        await client.post(CHAT, json={"messages": QUESTION})  # its connection is kept for the next
        asked = [{"role": "user", "content": text} for text in ("one", "two")]
        answers = await asyncio.gather(
            *(client.post(CHAT, json={"messages": [message]}) for message in asked)
        )
    assert [answer.json()["choices"][0]["message"] for answer in answers] == asked


async def test_a_model_without_eyes_is_shown_no_image(fake: FakeOllama, clients: Clients) -> None:
    content: Any = [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "text", "text": "What is it?"},
    ]
    ask = clients.openai.chat.completions.create
    with pytest.raises(openai.BadRequestError, match="cannot read images"):
        await ask(model=MODEL, messages=[{"role": "user", "content": content}])
    assert not fake.asked(CHAT)


async def test_a_request_without_a_model_gets_the_default(fake: FakeOllama, serve: Serve) -> None:
    fake.reply(replayed("chat"), replayed("chat"), path=CHAT)
    for settings, model in (({"default_model": MODEL}, MODEL), ({}, "llama3.1:70b")):
        async with httpx.AsyncClient(base_url=await serve(**settings)) as client:
            assert (await client.post(CHAT, json={"messages": QUESTION})).status_code == 200
        assert fake.asked(CHAT)[-1].json["model"] == model


async def test_text_that_is_not_utf_8_is_refused(serve: Serve) -> None:
    async with httpx.AsyncClient(base_url=await serve()) as client:
        headers = {"Content-Type": "application/json"}
        answer = await client.post(CHAT, content=b'{"model":"m","x":"\xff"}', headers=headers)
    assert answer.status_code == 400
    assert "UTF-8" in answer.json()["error"]["message"]


async def test_a_cloud_model_is_refused(fake: FakeOllama, clients: Clients) -> None:
    with pytest.raises(openai.PermissionDeniedError, match="cloud"):
        await clients.openai.chat.completions.create(model="gpt-oss:20b-cloud", messages=QUESTION)
    assert not fake.asked(CHAT)


@pytest.mark.parametrize("path", PLAIN)
async def test_a_plain_answer_declares_its_charset(serve: Serve, path: str) -> None:
    """Windows PowerShell 5.1 would read Korean as ISO-8859-1."""
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{await serve()}{path}", json={"model": MODEL})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
