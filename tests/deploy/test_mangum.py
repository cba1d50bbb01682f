"""The functions, from their zips, under AWS' own runtime client."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.deploy.conftest import Sandbox
from tests.deploy.events import GATEWAYS, Event, function_url, http_api, in_base64, rest_api
from tests.deploy.runtime_api import RuntimeAPI
from tests.fake_ollama import FakeOllama, never_answers, page, tokens

KOREAN = ("안녕", "하세요", "!")
REQUESTS = {
    "health": httpx.Request("GET", "https://api.example.com/api/health"),
    "models": httpx.Request("GET", "https://api.example.com/api/models"),
    "chat": httpx.Request(
        "POST", "https://api.example.com/api/chat", json={"message": "안녕하세요!"}
    ),
    "chat_stream": httpx.Request(
        "POST", "https://api.example.com/api/chat/stream", json={"message": "안녕하세요!"}
    ),
}
ANSWERS = {
    "health": {"status": "ok", "ollama_status": "connected", "api_version": "1.0.0"},
    "models": {"success": True, "models": ["smollm2:135m", "llama3.1:70b"], "count": 2},
}


async def invoke(api: RuntimeAPI, event: object, timeout_s: float = 30) -> Any:
    """Return what the function returns; the fake Ollama answers meanwhile."""
    answer = await asyncio.to_thread(api.invoke, event, timeout_s)
    assert answer.kind == "response"
    result = answer.json()
    assert result["isBase64Encoded"] is False
    return result


@pytest.mark.parametrize("function", REQUESTS)
async def test_every_gateway_cold_and_warm(
    sandbox: Sandbox, fake: FakeOllama, function: str
) -> None:
    fake.default = tokens(KOREAN)
    with sandbox(function) as api:
        for gateway in GATEWAYS:
            event = gateway(REQUESTS[function])
            for variant in (event, in_base64(event)):
                result = await invoke(api, variant)
                assert result["statusCode"] == 200, result
                check(function, result)
    if function.startswith("chat"):
        assert {request.json["messages"][0]["content"] for request in fake.asked()} == {
            "안녕하세요!"
        }
    assert fake.connections == 1, "the connection to Ollama outlives an invocation"


def check(function: str, result: Any) -> None:
    headers = result["headers"]
    if function == "chat_stream":
        assert headers["content-type"] == "application/x-ndjson; charset=utf-8"
        lines = [json.loads(line) for line in result["body"].splitlines()]
        assert [line["response"] for line in lines] == [*KOREAN, ""]
        assert [line["done"] for line in lines] == [False, False, False, True]
        return
    assert headers["content-type"] == "application/json; charset=utf-8"
    body = json.loads(result["body"])
    if function == "chat":
        assert (body["success"], body["response"]) == (True, "".join(KOREAN))
    else:
        assert body == ANSWERS[function]


@pytest.mark.parametrize("gateway", [rest_api, http_api])
async def test_a_custom_domain_has_a_base_path(
    sandbox: Sandbox, gateway: Callable[[httpx.Request], Event]
) -> None:
    with sandbox("models", API_GATEWAY_BASE_PATH="ai") as api:
        for path in ("/ai/api/models", "/api/models"):
            request = httpx.Request("GET", f"https://x.example.com{path}")
            result = await invoke(api, gateway(request))
            assert (result["statusCode"], json.loads(result["body"])) == (200, ANSWERS["models"])


async def test_an_answer_over_6_mb_is_an_error(sandbox: Sandbox, fake: FakeOllama) -> None:
    fake.default = tokens(["안" * 2**21, "!"])
    with sandbox("chat", MAX_PREDICT="100000") as api:
        result = await invoke(api, rest_api(REQUESTS["chat"]))
        assert result["statusCode"] == 500
        assert "6 MB" in json.loads(result["body"])["error"]
        fake.default = tokens(["안" * 2**20, "!"])
        result = await invoke(api, rest_api(REQUESTS["chat"]))
        assert result["statusCode"] == 200


@pytest.mark.parametrize("gateway", GATEWAYS)
async def test_the_gateway_reports_the_clients_address(
    sandbox: Sandbox, gateway: Callable[[httpx.Request], Event]
) -> None:
    request = httpx.Request(
        "GET", "https://x.example.com/api/models", headers={"X-Forwarded-For": "127.0.0.1"}
    )
    with sandbox("models", ANONYMOUS_CLIENTS="") as api:
        result = await invoke(api, gateway(request))
    assert result["statusCode"] == 401
    assert "192.0.2.7" in json.loads(result["body"])["error"]


async def test_an_answer_that_would_come_too_late_is_a_504_in_time(
    sandbox: Sandbox, fake: FakeOllama
) -> None:
    with sandbox("chat") as api:
        await invoke(api, http_api(REQUESTS["chat"]))  # the time of a cold start is not counted
        fake.reply(never_answers)
        async with asyncio.timeout(2):
            result = await invoke(api, http_api(REQUESTS["chat"]), timeout_s=2)
        assert result["statusCode"] == 504
        assert json.loads(result["body"])["error"].startswith("Request timeout")
        assert (await invoke(api, http_api(REQUESTS["chat"])))["statusCode"] == 200


async def test_a_failing_ollama_is_our_error_and_the_sandbox_lives_on(
    sandbox: Sandbox, fake: FakeOllama
) -> None:
    fake.reply(page(502))
    with sandbox("chat") as api:
        result = await invoke(api, rest_api(REQUESTS["chat"]))
        assert result["statusCode"] == 500
        assert json.loads(result["body"])["error"].startswith("Ollama connection error")
        await fake.stop()
        result = await invoke(api, rest_api(REQUESTS["chat"]))
        assert result["statusCode"] == 500
        await fake.start()
        assert (await invoke(api, rest_api(REQUESTS["chat"])))["statusCode"] == 200


async def test_an_event_that_is_none_of_a_gateway_is_an_error_of_the_invocation(
    sandbox: Sandbox,
) -> None:
    with sandbox("health") as api:
        answer = await asyncio.to_thread(api.invoke, {"source": "aws.events"})
        assert answer.kind == "error"
        assert "unable to infer a handler" in answer.json()["errorMessage"]
        assert (await invoke(api, function_url(REQUESTS["health"])))["statusCode"] == 200


async def test_only_the_log_names_invalid_settings(sandbox: Sandbox) -> None:
    with sandbox("health", RATE_LIMIT="often") as api:
        result = await invoke(api, http_api(REQUESTS["health"]))
    assert result["statusCode"] == 500
    assert "RATE_LIMIT" not in result["body"]
