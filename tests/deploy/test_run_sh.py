"""The chat functions as the Lambda Web Adapter runs them, from their zips."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from threading import Thread

import httpx
import pytest

from tests.deploy.adapter import PRELUDE_END, adapt
from tests.deploy.events import CLIENT, rest_api
from tests.deploy.runtime_api import RuntimeAPI
from tests.fake_ollama import Connection, FakeOllama, Lockstep, after
from tests.programs import free_ports, started

Start = Callable[..., Awaitable[str]]
"""(function, variable=value ...) -> the URL of the application that run.sh has started."""
WORDS = ("안녕", "하세요", "!", " 반가워요")
CHAT = {"message": "안녕하세요!"}


@pytest.fixture
async def start(
    python: Path, task_roots: Path, fake: FakeOllama, tmp_path: Path
) -> AsyncIterator[Start]:
    command = tmp_path / "python"  # without anything that was installed beside the standard library
    command.write_text(f'#!/bin/sh\nexec {python} -S "$@"\n', "utf-8")
    command.chmod(0o755)
    async with AsyncExitStack() as stack:

        async def start(function: str, **environ: str) -> str:
            (port,) = free_ports(1)
            environ = {
                "PATH": f"{tmp_path}:/usr/bin:/bin",
                "AWS_LAMBDA_FUNCTION_NAME": f"ollama-web-api-prod-{function}",
                "LAMBDA_TASK_ROOT": str(task_roots / function),
                "AWS_LWA_PORT": str(port),
                "UVICORN_APP": f"handlers.{function}:app",
                "OLLAMA_BASE_URL": fake.url,
                "ANONYMOUS_CLIENTS": "0.0.0.0/0",
                **environ,
            }
            stack.enter_context(started([task_roots / function / "run.sh"], environ, cwd=tmp_path))
            url = f"http://127.0.0.1:{port}"
            await readiness(url)
            return url

        yield start


async def readiness(url: str) -> None:
    """Ask for / until it is answered with a status from 100 to 499, as the adapter does."""
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(30):
        while True:
            try:
                if (await client.get(url)).status_code < 500:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("function", ["chat", "chat_stream"])
async def test_a_stream_comes_word_by_word(start: Start, fake: FakeOllama, function: str) -> None:
    url = await start(function)
    assert not fake.requests, "the readiness check needs no Ollama"
    lockstep = Lockstep(WORDS)
    fake.reply(lockstep)
    path = "/api/chat/stream" if function == "chat_stream" else "/api/chat/"
    lines = []
    async with (
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
        client.stream("POST", path, json={**CHAT, "stream": True}) as answer,
    ):
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            lines.append(json.loads(line))
            lockstep.next()
    assert [line["response"] for line in lines] == [*WORDS, ""]


async def test_a_plain_answer_and_what_fails_have_their_status(
    start: Start, fake: FakeOllama
) -> None:
    url, hasty = await start("chat"), await start("chat", REQUEST_TIMEOUT_S="0.5")
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        answer = await client.post("/api/chat", json=CHAT)
        assert answer.json()["success"] is True
        fake.default = after(0, Connection.hang)
        answer = await client.post(f"{hasty}/api/chat", json=CHAT)
        assert (answer.status_code, answer.json()["success"]) == (504, False)
        assert (await client.post("/api/chat", json={})).status_code == 400


async def test_a_custom_domain_has_a_base_path(start: Start) -> None:
    url = await start("chat", API_GATEWAY_BASE_PATH="/ai")
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        for path in ("/ai/api/chat", "/api/chat"):
            assert (await client.post(path, json=CHAT)).json()["success"] is True
        assert (await client.post("/aid/api/chat", json=CHAT)).status_code == 404


async def test_the_gateway_reports_who_calls(start: Start) -> None:
    url = await start("chat", ANONYMOUS_CLIENTS="127.0.0.0/8")
    context = {"x-amzn-request-context": json.dumps({"identity": {"sourceIp": CLIENT}})}
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        answer = await client.post("/api/chat", json=CHAT, headers=context)
    assert answer.status_code == 401
    assert CLIENT in answer.json()["error"]


async def test_the_gateway_is_handed_the_words_as_they_come(start: Start, fake: FakeOllama) -> None:
    url = await start("chat_stream")
    lockstep = Lockstep(WORDS)
    fake.reply(lockstep)
    event = rest_api(httpx.Request("POST", "https://x.example.com/api/chat/stream", json=CHAT))
    with RuntimeAPI() as api:
        adapter = Thread(target=adapt, args=(api.address, url))
        adapter.start()
        answer = await asyncio.to_thread(api.invoke, event)
        assert answer.kind == "response"
        assert answer.headers["Lambda-Runtime-Function-Response-Mode"] == "streaming"
        received = b""
        while piece := await asyncio.to_thread(answer.pieces.get, timeout=60):
            received += piece
            if piece.endswith(b"\n"):
                lockstep.next()
    adapter.join()
    prelude, _, body = received.partition(PRELUDE_END)
    assert json.loads(prelude)["statusCode"] == 200
    lines = [json.loads(line) for line in body.splitlines()]
    assert [line["response"] for line in lines] == [*WORDS, ""]
