"""The log line of a request."""

import asyncio
import json
import logging
from datetime import timedelta
from pathlib import Path

import httpx
import jwt
import pytest
from starlette.types import Message

from core.app import create_app
from core.context import Record
from core.keys.editing import create
from core.observe import logs
from core.observe.writer import LogFile, LogWriter
from core.settings.schema import Settings
from handlers import chat
from tests.conftest import Serve
from tests.fake_ollama import (
    FakeOllama,
    Reply,
    error,
    never_answers,
    stalls_after,
    tokens,
)
from tests.gateway import MangumTransport
from tests.log_lines import Lines

CHAT = {"message": "내 비밀 prompt", "model": "smollm2:135m"}


def record(**values: object) -> Record:
    fixed = {"request_id": "i", "method": "POST", "path": "/api/chat", "started_at": 0.0}
    return Record(**{**fixed, **values})  # type: ignore[arg-type]


async def test_a_request_is_one_line_without_any_chat_text(
    serve: Serve, fake: FakeOllama, lines: Lines
) -> None:
    fake.reply(tokens(["비밀", " 답"], pace_s=0.02))
    url = await serve()
    async with httpx.AsyncClient() as client:
        answer = await client.post(
            f"{url}/api/chat/stream", json=CHAT, headers={"X-Request-ID": "my-id.1"}
        )
        assert answer.headers["x-request-id"] == "my-id.1"
        assert dict(fake.asked()[0].headers)["x-request-id"] == "my-id.1"
        (line,) = await lines.of_requests(1)
    assert line["id"] == "my-id.1"
    assert (line["client"], line["address"]) == ("address:127.0.0.1", "127.0.0.1")
    assert (line["model"], line["status"]) == ("smollm2:135m", 200)
    assert line["tokens"] == 3
    assert isinstance(line["first_token_ms"], int)
    assert isinstance(line["total_ms"], int)
    assert 20 <= line["first_token_ms"] <= line["total_ms"]
    text = lines.path.read_text("utf-8")
    assert "비밀" not in text
    assert "prompt" not in text


async def test_an_unwritable_log_file_fails_no_request(
    serve: Serve, fake: FakeOllama, lines: Lines, capfd: pytest.CaptureFixture[str]
) -> None:
    url = await serve()
    lines.path.unlink()
    lines.path.mkdir()
    async with httpx.AsyncClient(timeout=5) as client:
        for _ in range(2):
            assert (await client.post(f"{url}/api/chat", json=CHAT)).status_code == 200
        told = ""
        async with asyncio.timeout(10):
            while told.count('"path":"/api/chat"') < 2:
                await asyncio.sleep(0.01)
                logs.flush()
                told += capfd.readouterr().err
        assert "LOG_FILE cannot be written: Is a directory" in told
        lines.path.rmdir()
        assert (await client.post(f"{url}/api/chat", json=CHAT)).status_code == 200
        logs.flush()
        assert len(await lines.of_requests(1)) == 1
    assert capfd.readouterr().err == ""


def test_a_log_with_nowhere_to_go_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = LogWriter(LogFile(tmp_path / "log"))
    (tmp_path / "log").unlink()
    (tmp_path / "log").mkdir()
    monkeypatch.setattr("sys.stderr", None)
    handler.handle(logging.makeLogRecord({"msg": "x"}))
    handler.flush()
    assert handler.dropped == 1


async def test_a_lambda_function_logs_one_line_per_request_too(
    fake: FakeOllama, lines: Lines
) -> None:
    app = create_app(chat.routes, Settings(ollama_base_url=fake.url))
    request = httpx.Request("POST", "http://localhost/api/chat", json=CHAT)
    async with MangumTransport(app) as transport:
        assert (await transport.handle_async_request(request)).status_code == 200
    logs.flush()
    assert [line["logger"] for line in lines.all()] == ["request"]


@pytest.mark.parametrize("wanted", ["", "a b", "a\tb", "ä", "x" * 129, '"', "<script>"])
async def test_an_ill_formed_id_is_replaced(serve: Serve, wanted: str) -> None:
    url = await serve()
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{url}/api/health", headers=[(b"X-Request-ID", wanted.encode())])
    assert len(answer.headers["x-request-id"]) == 16


async def test_a_client_cannot_write_lines_into_the_log(
    serve: Serve, fake: FakeOllama, lines: Lines
) -> None:
    url = await serve()
    async with httpx.AsyncClient() as client:
        await client.get(f"{url}/api/%0a%7b%22forged%22:1%7d%e2%80%a8%1b%5b31m" + "x" * 1000)
        (line,) = await lines.of_requests(1)
    raw = lines.path.read_bytes().decode("utf-8")
    assert len(raw.splitlines()) == raw.count("\n") == len(lines.all())
    assert "\x1b" not in raw
    assert len(str(line["path"])) <= 200


@pytest.mark.parametrize(
    ("reply", "path", "status", "name"),
    [
        (error(500, "boom"), "/api/chat", 500, "OllamaError"),
        (error(503, "busy"), "/api/chat/stream", 503, "OllamaBusy"),
        (stalls_after(1), "/api/chat/stream", 200, "RequestTimeout"),
        (never_answers, "/api/chat", 504, "RequestTimeout"),
    ],
)
async def test_a_failure_is_logged_by_its_name_and_counted(
    serve: Serve, fake: FakeOllama, lines: Lines, reply: Reply, path: str, status: int, name: str
) -> None:
    fake.reply(reply)
    url = await serve(request_timeout_s=0.3)
    async with httpx.AsyncClient() as client:
        await client.post(url + path, json=CHAT)
        (line,) = await lines.of_requests(1)
        assert (line["status"], line["error"]) == (status, name)
        metrics = (await client.get(f"{url}/metrics")).text
        stats = (await client.get(f"{url}/api/stats")).json()
    assert f'ollama_web_api_upstream_errors_total{{error="{name}"}} 1.0' in metrics
    assert stats == {"success": True, "models": [], "queue": {"running": 0, "waiting": 0}}


def test_the_console_shows_a_human_readable_line() -> None:
    line = logs.ConsoleFormatter().format([record(status=200, model="m\n", duration_s=1.5)])
    assert line.endswith(
        r"INFO    id=i client= address= method=POST path=/api/chat status=200 model=m\x0a "
        "queue_ms=0 tokens=0 total_ms=1500"
    )


@pytest.mark.parametrize("formatter", [logs.JSONFormatter(), logs.ConsoleFormatter()])
def test_a_name_that_is_no_unicode_is_escaped_and_takes_no_other_line_with_it(
    formatter: logging.Formatter,
) -> None:
    records = [record(model=model, path="/\x7f") for model in ("a", "\udcff", "\u2028")]
    text = formatter.format(records)  # type: ignore[arg-type]
    assert len(text.encode().splitlines()) == len(text.splitlines()) == 3
    assert "\\udcff" in text


def test_a_traceback_is_part_of_the_line() -> None:
    try:
        _ = 1 / 0
    except ZeroDivisionError as failure:
        trace = (type(failure), failure, None)
    entry = logging.LogRecord("n", logging.ERROR, "", 1, "x\u2028%s", ("\n",), trace)
    line = logs.JSONFormatter().format(entry)
    assert "\n" not in line
    assert json.loads(line)["message"] == "x\u2028\n"
    assert "ZeroDivisionError" in json.loads(line)["exception"]
    assert "ZeroDivisionError" in logs.ConsoleFormatter().format(entry)


async def test_a_request_refused_after_waiting_is_logged_with_its_wait(
    serve: Serve, fake: FakeOllama, lines: Lines
) -> None:
    fake.reply(never_answers)
    url = await serve(max_concurrent=1, queue_timeout_s=0.1, request_timeout_s=0.4)
    async with httpx.AsyncClient() as client, asyncio.TaskGroup() as group:
        for path in ("/api/chat", "/api/chat", "/api/chat/stream"):
            group.create_task(client.post(url + path, json=CHAT))
    first, second, last = await lines.of_requests(3)
    for refused in (first, second):
        assert refused["error"] == "QueueFull"
        assert isinstance(refused["queue_ms"], int)
        assert refused["queue_ms"] >= 100
    assert last["queue_ms"] == 0
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{url}/metrics")).text
    assert "ollama_web_api_queue_wait_seconds_count 2.0" in text


async def test_a_refused_key_is_logged_by_its_name(
    serve: Serve, lines: Lines, tmp_path: Path
) -> None:
    path = tmp_path / "keys.json"
    key, expired = create(path, "ci"), create(path, "old", lifetime=timedelta(microseconds=1))
    url = await serve(api_keys_file=str(path))
    async with httpx.AsyncClient(base_url=url) as client:
        for credential in (f"{key}x", expired, "owa_12345678_x", key):
            await client.get("/api/models", headers={"X-API-Key": credential})
    found = await lines.of_requests(4)
    assert [line.get("refused_key") for line in found] == ["ci", "old", None, None]
    assert [line["client"] for line in found] == ["", "", "", "key:ci"]
    assert {line["address"] for line in found} == {"127.0.0.1"}
    text = lines.path.read_text("utf-8")
    assert key not in text
    assert expired not in text


async def test_a_tokens_subject_and_a_key_of_its_name_are_told_apart(
    serve: Serve, lines: Lines, tmp_path: Path
) -> None:
    path = tmp_path / "keys.json"
    secret = "0123456789abcdef0123456789abcdef"  # noqa: S105
    token = jwt.encode({"sub": "ci", "exp": 2**33}, secret)
    url = await serve(api_keys_file=str(path), jwt_secret=secret)
    async with httpx.AsyncClient(base_url=url) as client:
        for credential in (create(path, "ci"), token):
            await client.get("/api/health")
            await client.get("/api/models", headers={"X-API-Key": credential})
    found = [line["client"] for line in await lines.of_requests(4)]
    assert found == ["address:127.0.0.1", "key:ci", "address:127.0.0.1", "jwt:ci"]


async def test_a_function_logs_and_answers_a_path_that_is_no_unicode(
    fake: FakeOllama, lines: Lines
) -> None:
    app = create_app(chat.routes, Settings(ollama_base_url=fake.url))
    sent: list[Message] = []
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/\udce9",
        "headers": [(b"host", b"localhost")],
    }

    async def send(message: Message) -> None:
        sent.append(message)

    await app({**scope, "client": ("127.0.0.1", 1), "scheme": "http"}, none, send)
    logs.flush()
    assert [message.get("status") for message in sent] == [404, None]
    logs.flush()
    assert [line["path"] for line in lines.all()] == [r"/\udce9"]


async def none() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}
