import asyncio
import gzip
import json
from typing import Any
from unittest.mock import ANY

import httpx
import pytest

from handlers import chat
from tests.conftest import Connect, Serve
from tests.fake_ollama import (
    FakeOllama,
    Reply,
    closes_before_head,
    error,
    never_answers,
    page,
    recorded,
    resets_before_head,
    tokens,
)
from tests.gateway import Context


async def post(client: httpx.AsyncClient, **body: Any) -> httpx.Response:
    return await client.post("/api/chat", json={"model": "smollm2:135m", "message": "hi", **body})


def assert_error(answer: httpx.Response, status: int, start: str = "") -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert int(answer.headers["content-length"]) == len(answer.content) > 0
    assert list(answer.json()) == ["success", "error"]
    assert answer.json()["success"] is False
    assert answer.json()["error"].startswith(start)


@pytest.mark.parametrize("path", ["/api/chat", "/api/chat/"])
async def test_a_plain_answer(connect: Connect, fake: FakeOllama, path: str) -> None:
    answer = await connect(chat).post(path, json={"message": "안녕하세요!"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.json() == {
        "success": True,
        "response": "The capital of France is Paris.",
        "model": "llama3.1:70b",
        "done": True,
        "context": ANY,
        "done_reason": "stop",
        "prompt_eval_count": 16,
        "eval_count": 8,
        "total_duration": 331542986,
    }
    sent = fake.asked()[0].json
    assert sent["messages"] == [{"role": "user", "content": "안녕하세요!"}]
    assert sent["model"] == "llama3.1:70b"
    assert sent["stream"] is False


async def test_an_operator_may_set_another_default_model(connect: Connect) -> None:
    answer = await connect(chat, default_model="smollm2:135m").post(
        "/api/chat", json={"message": "hi"}
    )
    assert answer.json()["model"] == "smollm2:135m"


async def test_korean_comes_back_unchanged(connect: Connect, fake: FakeOllama) -> None:
    fake.reply(tokens(["안녕", "하세요! ", "😀\u2028끝"]))
    answer = await post(connect(chat))
    assert answer.json()["response"] == "안녕하세요! 😀\u2028끝"
    assert "안녕하세요" in answer.content.decode("utf-8")


@pytest.mark.parametrize("think", [True, "high", False])
async def test_thinking_is_returned_only_when_asked_for(
    connect: Connect, fake: FakeOllama, think: bool | str
) -> None:
    fake.reply(tokens(["4"], thinking=["2 and ", "2"]))
    answer = (await post(connect(chat), think=think)).json()
    assert answer["response"] == "4"
    assert answer.get("thinking") == ("2 and 2" if think else None)
    assert fake.asked()[0].json["think"] == think


async def test_fields_that_a_client_may_not_set_never_reach_ollama(
    connect: Connect, fake: FakeOllama
) -> None:
    await post(connect(chat), keep_alive=0, raw=True, tools=[], shift=True, context=None)
    assert set(fake.asked()[0].json) == {
        "model",
        "messages",
        "stream",
        "think",
        "options",
        "truncate",
        "shift",
    }


async def test_no_client_header_is_forwarded(
    connect: Connect, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    client = connect(chat, ollama_headers={"X-Tunnel-Token": "t"}, allowed_hosts=("evil",))
    secrets = {"Authorization": "Basic s", "Cookie": "a=s", "Origin": "https://x", "Host": "evil"}
    answer = await client.post("/api/chat", json={"message": "hi"}, headers=secrets)
    assert answer.status_code == 200
    headers = dict(fake.asked()[0].headers)
    assert headers.pop("host") == httpx.URL(fake.url).netloc.decode()
    assert headers.pop("x-request-id") == answer.headers["x-request-id"]
    assert headers.pop("content-length").isdecimal()
    assert headers == {
        "user-agent": "ollama-web-api",
        "x-tunnel-token": "t",
        "content-type": "application/json",
    }


@pytest.mark.parametrize("body", [{"message": ""}, {"message": " \n"}, {}, {"message": 1}])
async def test_a_message_is_required(
    connect: Connect, fake: FakeOllama, body: dict[str, object]
) -> None:
    assert_error(await connect(chat).post("/api/chat", json=body), 400, "message: ")
    assert not fake.requests, "an empty prompt would load a model"


@pytest.mark.parametrize(
    ("content", "status", "start"),
    [
        (b"", 400, "The body is not valid JSON"),
        (b"{", 400, "The body is not valid JSON"),
        (b'{"message": "\xff"}', 400, "The body is not valid text"),
        (b"x" * 2001, 413, "The body is over 2000 bytes"),
    ],
)
async def test_a_bad_body_is_refused(
    connect: Connect, fake: FakeOllama, content: bytes, status: int, start: str
) -> None:
    client = connect(chat, max_body_bytes=2000)
    headers = {"Content-Type": "application/json"}
    assert_error(await client.post("/api/chat", content=content, headers=headers), status, start)
    assert not fake.requests


@pytest.mark.parametrize(
    ("content_type", "charset", "status"),
    [
        ("application/json", "utf-8", 200),
        ("Application/JSON ; Charset=UTF-8", "utf-8", 200),
        ('application/json; charset="utf-8"', "utf-8-sig", 200),
        ("application/json; charset=euc-kr", "euc-kr", 200),
        ("application/json; charset=euc-kr", "cp949", 200),
        ("application/json; charset=cp949", "cp949", 200),
        ("application/json; charset=windows-949", "cp949", 200),
        ("application/json; charset=x-windows-949", "cp949", 200),
        ("application/json; charset=ks_c_5601-1987", "cp949", 200),
        ("application/json; charset=utf-16", "utf-16", 200),
        ("application/json; charset=nonsense", "utf-8", 400),
        ("application/json; charset=rot13", "utf-8", 400),
        ("application/json; charset=zlib", "utf-8", 400),
        ("application/json; charset=idna", "utf-8", 400),
        ("application/json; charset=us-ascii", "utf-8", 400),
        ("application/json", "cp949", 400),
        ("text/plain", "utf-8", 415),
        ("application/x-www-form-urlencoded", "utf-8", 415),
        ("multipart/form-data", "utf-8", 415),
        ("application/jsonp", "utf-8", 415),
        ("", "utf-8", 415),
    ],
)
async def test_the_declared_type_and_charset_are_honoured(
    connect: Connect, fake: FakeOllama, content_type: str, charset: str, status: int
) -> None:
    message = (
        "똠방각하 뷁" if charset in {"cp949", "utf-8", "utf-8-sig", "utf-16"} else "안녕하세요"
    )
    body = json.dumps({"message": message}, ensure_ascii=False).encode(charset)
    headers = {"Content-Type": content_type} if content_type else {}
    answer = await connect(chat).post("/api/chat", content=body, headers=headers)
    assert answer.status_code == status
    if status == 200:
        assert fake.asked()[0].json["messages"][-1]["content"] == message
    else:
        assert_error(answer, status)
        assert "application/json; charset=utf-8" in answer.json()["error"]


@pytest.mark.parametrize("coding", ["gzip", "br", "Identity", "utf-8"])
async def test_a_compressed_body_is_refused_as_such(connect: Connect, coding: str) -> None:
    body = b'{"message": "hi"}'
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    content = gzip.compress(body) if coding == "gzip" else body
    answer = await connect(chat).post("/api/chat", content=content, headers=headers)
    if coding in {"Identity", "utf-8"}:
        assert answer.status_code == 200
    else:
        assert_error(answer, 400, "The body is compressed. Send it without")


WINDOWS_POWERSHELL = "Mozilla/5.0 (Windows NT; Windows NT 10.0; ko-KR) WindowsPowerShell/5.1.19041"
POWERSHELL = "Mozilla/5.0 (Windows NT 10.0; Microsoft Windows 10.0.19045; ko-KR) PowerShell/7.2.1"
LATIN_1 = "application/json; charset=iso-8859-1"
UTF_8 = "application/json; charset=utf-8"


@pytest.mark.parametrize(
    ("message", "user_agent", "content_type", "status"),
    [
        ("?????!", WINDOWS_POWERSHELL, "application/json", 400),
        ("??? ??, ???\n??.", POWERSHELL, "application/json", 400),
        ("?????!", WINDOWS_POWERSHELL, LATIN_1, 400),
        ("?????!", WINDOWS_POWERSHELL, UTF_8, 200),
        ("?? 2+2?", WINDOWS_POWERSHELL, "application/json", 200),
        ("!", WINDOWS_POWERSHELL, "application/json", 200),
        ("?????!", "curl/7.88.1", "application/json", 200),
    ],
)
async def test_hangul_lost_by_powershell_is_a_400_that_says_so(
    connect: Connect,
    fake: FakeOllama,
    message: str,
    user_agent: str,
    content_type: str,
    status: int,
) -> None:
    answer = await connect(chat).post(
        "/api/chat",
        content=json.dumps({"message": message}),
        headers={"Content-Type": content_type, "User-Agent": user_agent},
    )
    assert answer.status_code == status
    if status == 400:
        assert_error(answer, 400, "message: ")
        assert "application/json; charset=utf-8" in answer.json()["error"]
        assert not fake.requests
    else:
        assert fake.asked()[0].json["messages"][-1]["content"] == message


async def test_an_error_for_a_missing_model_names_the_installed_ones(
    connect: Connect, fake: FakeOllama
) -> None:

    answer = await post(connect(chat), model="no-such:7b")
    assert_error(answer, 404, "Model 'no-such:7b' is not installed.")
    assert "smollm2:135m, llama3.1:70b" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/api/chat", "/api/chat/stream"])
async def test_a_missing_model_frees_its_slot_while_the_list_hangs(
    serve: Serve, fake: FakeOllama, path: str
) -> None:
    fake.reply(never_answers, path="/api/tags")
    url = await serve(max_concurrent=1)
    async with httpx.AsyncClient(timeout=10) as client:
        missing = asyncio.create_task(
            client.post(url + path, json={"message": "hi", "model": "no-such:7b"})
        )
        await fake.wait_for(1, "/api/tags")
        assert (await client.get(f"{url}/api/stats")).json()["queue"]["running"] == 0
        answer = await missing
    assert_error(answer, 404, "Model 'no-such:7b' is not installed. GET /api/models lists")


async def test_an_error_says_when_no_model_is_installed(connect: Connect, fake: FakeOllama) -> None:
    fake.models = []
    answer = await post(connect(chat))
    assert_error(answer, 404)
    assert "ollama pull smollm2:135m" in answer.json()["error"]


@pytest.mark.parametrize("model", ["gpt-oss:20b-cloud", "GLM:CLOUD", "lib/x:cloud", "x-cloud"])
async def test_cloud_models_are_refused_unless_allowed(
    connect: Connect, fake: FakeOllama, model: str
) -> None:
    assert_error(await post(connect(chat), model=model), 403, f"Model '{model}' would send")
    assert not fake.requests
    fake.models = [model.lower()]
    assert (await post(connect(chat, allow_cloud_models=True), model=model)).status_code == 200


@pytest.mark.parametrize(
    ("reply", "status", "start"),
    [
        (
            error(500, "llama runner process has terminated"),
            500,
            "Ollama connection error: llama runner",
        ),
        (
            recorded("runner_killed_nonstream"),
            500,
            "Ollama connection error: an error was encountered",
        ),
        (
            recorded("token_repeat_abort_nonstream"),
            500,
            "Ollama connection error: the answer ended",
        ),
        (
            recorded("overlong_truncate_false"),
            400,
            "Ollama rejected this request: the input",
        ),
        (recorded("err_think_true"), 400, "Ollama rejected this request: "),
        (
            recorded("err_option_type_stop_string"),
            400,
            "Ollama rejected this request: option",
        ),
        (recorded("err_format_bad"), 400, "Ollama rejected this request: invalid format"),
        (
            recorded("err_images_not_base64"),
            400,
            "Ollama rejected this request: illegal base64",
        ),
        (
            recorded("err_host_evil_generate"),
            500,
            "Ollama connection error: it denied this server access",
        ),
        (
            recorded("trailing_slash"),
            500,
            "Ollama connection error: no Ollama found at this address",
        ),
        (
            recorded("err_unknown_route_post"),
            500,
            "Ollama connection error: no Ollama found at this address",
        ),
        (closes_before_head, 500, "Ollama connection error: the connection to Ollama broke"),
        (resets_before_head, 500, "Ollama connection error: the connection to Ollama broke"),
        (page(502), 500, "Ollama connection error: it failed without saying why (HTTP 502)"),
        (page(200), 500, "Ollama connection error: the answer is not Ollama's"),
        (page(200, b""), 500, "Ollama connection error: the answer is not Ollama's"),
        (page(500, b""), 500, "Ollama connection error: it failed without saying why"),
    ],
)
async def test_ollamas_failures_are_reported(
    connect: Connect, fake: FakeOllama, reply: Reply, status: int, start: str
) -> None:
    fake.reply(reply)
    assert_error(await post(connect(chat)), status, start)
    assert len(fake.asked()) == 1, "nothing is ever sent twice"


@pytest.mark.parametrize(
    ("reply", "seconds"),
    [(recorded("concurrency_cold_nonstream_503"), "5"), (page(503, b"", "Retry-After: 9"), "9")],
)
async def test_a_busy_ollama_is_a_503_that_says_when_to_retry(
    connect: Connect, fake: FakeOllama, reply: Reply, seconds: str
) -> None:
    fake.reply(reply)
    answer = await post(connect(chat))
    assert_error(answer, 503, "Ollama is busy")
    assert answer.headers["retry-after"] == seconds


async def test_ollama_down_is_a_500(connect: Connect, fake: FakeOllama) -> None:
    await fake.stop()
    answer = await post(connect(chat))
    assert_error(answer, 500, "Ollama connection error: cannot connect to Ollama")
    assert "127.0.0.1" not in answer.text


async def test_no_complete_answer_in_time_is_a_504(connect: Connect, fake: FakeOllama) -> None:
    fake.reply(never_answers)
    answer = await post(connect(chat, request_timeout_s=0.2))
    assert_error(answer, 504, "Request timeout: no complete answer within 0.2 seconds")
    async with asyncio.timeout(1):
        await fake.asked()[0].disconnected.wait()


@pytest.mark.parametrize("connect", ["lambda"], indirect=True)
async def test_a_lambda_function_answers_before_its_time_runs_out(
    connect: Connect, fake: FakeOllama
) -> None:
    fake.reply(never_answers)
    client = connect(chat)
    client._transport._context = Context(remaining_ms=700)  # type: ignore[attr-defined]
    assert_error(await post(client), 504, "Request timeout: no complete answer within 0.2 seconds")


async def test_an_internal_crash_is_a_500_in_the_same_shape(
    connect: Connect, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.ollama.wire.read_line", lambda text: 1 / 0)
    answer = await post(connect(chat))
    assert_error(answer, 500, "Internal error")
    assert "division" not in answer.text


async def test_a_cloud_model_under_another_name_is_refused_too(
    connect: Connect, fake: FakeOllama
) -> None:
    fake.remote = {"smollm2:135m"}
    client = connect(chat)
    for name in ("smollm2:135m", "SmolLM2:135M"):
        assert_error(await post(client, model=name), 403, f"Model '{name}' would send")
    assert (await post(client, model="llama3.1:70b")).status_code == 200
    assert (await post(connect(chat, allow_cloud_models=True))).status_code == 200
    assert [request.json["model"] for request in fake.asked()] == ["llama3.1:70b", "smollm2:135m"]


async def test_model_details_are_refreshed_periodically(
    connect: Connect, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.ollama.models.KNOWN_FOR_S", 0.05)
    client = connect(chat)
    assert (await post(client)).status_code == 200
    await asyncio.sleep(0.1)
    fake.remote = {"smollm2:135m"}  # pulled again
    assert_error(await post(client), 403, "Model ")


@pytest.mark.parametrize("connect", ["function", "bundle"], indirect=True)
async def test_concurrent_requests_fail_together(
    connect: Connect, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.ollama.api.METADATA_TIMEOUT_S", 0.3)
    fake.reply(never_answers, path="/api/show")
    client = connect(chat)
    answers = await asyncio.gather(*(post(client) for _ in range(4)))
    assert {answer.status_code for answer in answers} == {504}
    assert len(fake.asked("/api/show")) == 1
    assert (await post(client)).status_code == 200


async def test_concurrent_requests_look_up_their_model_once(
    connect: Connect, fake: FakeOllama
) -> None:
    client = connect(chat)
    answers = await asyncio.gather(*(post(client) for _ in range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(fake.asked("/api/show")) == 1


@pytest.mark.parametrize("reply", [error(404, "model 'x' not found"), page(405), page(200)])
async def test_a_model_that_ollama_does_not_describe_is_asked(
    connect: Connect, fake: FakeOllama, reply: Reply
) -> None:
    fake.reply(reply, path="/api/show")
    assert (await post(connect(chat))).status_code == 200


@pytest.mark.parametrize("reply", [error(500, "no"), closes_before_head, page(502)])
async def test_nothing_is_sent_to_a_model_that_ollama_fails_to_describe(
    connect: Connect, fake: FakeOllama, reply: Reply
) -> None:
    fake.reply(reply, path="/api/show")
    client = connect(chat)
    assert_error(await post(client), 500, "Ollama connection error: ")
    assert not fake.asked()
    assert (await post(client)).status_code == 200, "a failure is not cached"


async def test_stream_true_behaves_like_the_stream_endpoint(
    connect: Connect, fake: FakeOllama
) -> None:
    answer = await post(connect(chat), stream=True)
    assert answer.headers["content-type"] == "application/x-ndjson; charset=utf-8"
    assert json.loads(answer.text.splitlines()[-1])["context"]
    assert fake.asked()[0].json["stream"] is True
