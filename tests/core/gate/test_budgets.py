"""Token budgets, through the whole application."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.app import create_app
from core.keys.records import digest
from core.settings.schema import Settings
from handlers import v1_chat_completions
from tests.conftest import Serve
from tests.fake_ollama import FakeOllama, tokens, whole
from tests.gateway import MangumTransport
from tests.leaving import LEAVABLE, seconds_until_freed
from tests.recorded import Recorded
from tests.redis_server import RedisServer

CHAT = {"message": "hi", "model": "smollm2:135m"}
COST = 16 + 8
"""What an answer of the fake takes: its prompt and its tokens."""


def key(name: str, key_id: str, **limits: Any) -> tuple[dict[str, str], dict[str, Any]]:
    text = f"owa_{key_id}_for-tests"
    stored = {"name": name, "id": key_id, "sha256": digest(text), "created": "2026-01-01T00:00:00Z"}
    return {"X-API-Key": text}, {**stored, **limits}


CI, CI_STORED = key("ci", "00000001", tokens=f"{2 * COST}/day")
FREE, FREE_STORED = key("free", "00000002")
KEYS = json.dumps([CI_STORED, FREE_STORED])


@pytest.fixture
def ask(serve: Serve) -> Callable[..., Any]:
    async def ask(headers: dict[str, str], count: int, **settings: Any) -> list[httpx.Response]:
        url = await serve(**{"api_keys": KEYS, "rate_limit": "off", **settings})
        async with httpx.AsyncClient(base_url=url, headers=headers) as client:
            return [await client.post("/api/chat", json=CHAT) for _ in range(count)]

    return ask


async def test_a_key_s_budget_is_refused_when_it_is_used_up(ask: Callable[..., Any]) -> None:
    *answers, refused = await ask(CI, 3)
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[1].headers["ratelimit-policy"] == f'"tokens";q={2 * COST};w=86400;qu="tokens"'
    assert answers[1].headers["ratelimit"].startswith(f'"tokens";r={COST};t=')
    assert refused.status_code == 429
    assert "quota" in refused.json()["error"]
    assert 0 < int(refused.headers["retry-after"]) <= 86_400
    assert refused.headers["ratelimit"].startswith('"tokens";r=0;t=')


async def test_it_stands_beside_the_rate_as_a_second_policy(ask: Callable[..., Any]) -> None:
    (answer,) = await ask(CI, 1, rate_limit="60/minute")
    assert [part.split(";")[0] for part in answer.headers["ratelimit"].split(", ")] == [
        '"default"',
        '"tokens"',
    ]


async def test_a_key_without_a_budget_and_other_calls_are_free(
    ask: Callable[..., Any], serve: Serve
) -> None:
    assert {answer.status_code for answer in await ask(FREE, 5, user_tokens="1/day")} == {200}
    url = await serve(user_tokens="1/day")
    async with httpx.AsyncClient(base_url=url) as client:
        assert (await client.post("/api/chat", json=CHAT)).status_code == 200
        assert (await client.post("/api/chat", json=CHAT)).status_code == 429
        assert (await client.get("/api/models")).status_code == 200


async def test_streams_and_failures_cost_what_they_took(serve: Serve, fake: FakeOllama) -> None:
    url = await serve(user_tokens=f"{COST}/day", rate_limit="off")
    async with httpx.AsyncClient(base_url=url) as client:
        fake.reply(tokens(done_reason="stop"))
        assert (await client.post("/api/chat", json={"message": ""})).status_code == 400
        assert (await client.post("/api/chat/stream", json=CHAT)).status_code == 200
        assert (await client.post("/api/chat/stream", json=CHAT)).status_code == 429


@pytest.mark.parametrize("path", LEAVABLE)
async def test_a_client_that_leaves_before_the_end_pays_for_what_has_come(
    serve: Serve, fake: FakeOllama, path: str
) -> None:
    url = await serve(user_tokens="2/day", rate_limit="off")
    await seconds_until_freed(fake, url, path, has_begun=True)
    async with asyncio.timeout(20), httpx.AsyncClient(base_url=url) as client:
        # Nothing is said, so nothing but the budget can refuse it.
        while (await client.post("/api/chat", json={"message": ""})).status_code != 429:
            await asyncio.sleep(0.05)


async def test_a_stream_without_a_usage_costs_an_estimate(serve: Serve, fake: FakeOllama) -> None:
    url = await serve(user_tokens="1/day", rate_limit="off")
    stream = Recorded("v1/chat_stream")  # as from an Ollama that ignores `stream_options`
    fake.reply(whole(200, "text/event-stream", stream.body), path="/v1/chat/completions")
    asked = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with httpx.AsyncClient(base_url=url) as client:
        answer = await client.post("/v1/chat/completions", json=asked)
        assert answer.content == stream.body
        assert (await client.post("/v1/chat/completions", json=asked)).status_code == 429


async def test_a_budget_renews(ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr("core.gate.budgets.time.time", lambda: now)
    assert [answer.status_code for answer in await ask(CI, 3)] == [200, 200, 429]
    now += 86_400
    assert [answer.status_code for answer in await ask(CI, 1)] == [200]


async def test_a_budget_survives_a_restart_where_usage_is_kept(
    ask: Callable[..., Any], serve: Serve, tmp_path: Path
) -> None:
    path = str(tmp_path / "usage.db")
    url = await serve(api_keys=KEYS, usage_file=path)
    async with httpx.AsyncClient(base_url=url, headers=CI) as client:
        assert (await client.post("/api/chat", json=CHAT)).status_code == 200
        await client.get("/api/usage")  # which writes what was counted
    assert [answer.status_code for answer in await ask(CI, 2, usage_file=path)] == [200, 429]


async def test_servers_share_a_budget_in_redis(
    ask: Callable[..., Any],
    redis: RedisServer,
) -> None:
    assert [a.status_code for a in await ask(CI, 1, rate_limit_storage=redis.url)] == [200]
    assert [a.status_code for a in await ask(CI, 2, rate_limit_storage=redis.url)] == [200, 429]


async def test_gateways_and_functions_share_it_on_every_path(
    serve: Serve, fake: FakeOllama, redis: RedisServer
) -> None:
    stored = {**CI_STORED, "tokens": f"{5 * COST}/day"}
    settings: dict[str, Any] = {
        "api_keys": json.dumps([stored]),
        "rate_limit": "off",
        "rate_limit_storage": redis.url,
    }
    first, second = await serve(**settings), await serve(**settings)
    function = MangumTransport(
        create_app(v1_chat_completions.routes, Settings(ollama_base_url=fake.url, **settings))
    )
    relayed = {"model": CHAT["model"], "messages": [{"role": "user", "content": "hi"}]}
    path = "/v1/chat/completions"
    async with (
        httpx.AsyncClient(headers=CI) as client,
        httpx.AsyncClient(headers=CI, transport=function, base_url="http://localhost") as called,
    ):
        answers = [
            await client.post(f"{first}{path}", json=relayed),
            await client.post(f"{second}{path}", json={**relayed, "stream": True}),
            await client.post(f"{first}/api/chat", json=CHAT),
            await called.post(path, json=relayed),
            await called.post(path, json={**relayed, "stream": True}),
        ]
        refused = [
            await called.post(path, json=relayed),
            await client.post(f"{second}{path}", json=relayed),
            await client.post(f"{first}/v1/messages", json=relayed),
            await client.post(f"{second}/api/chat/stream", json=CHAT),
        ]
    assert [answer.status_code for answer in answers] == [200] * 5
    left = [answer.headers["ratelimit"].split(";")[1] for answer in answers]
    assert left == [f"r={count * COST}" for count in (5, 4, 3, 2, 1)]
    assert [answer.status_code for answer in refused] == [429] * 4
    assert all(0 < int(answer.headers["retry-after"]) <= 86_400 for answer in refused)
    assert refused[1].json()["error"]["code"] == "rate_limit_exceeded"
    assert refused[2].json()["error"]["type"] == "rate_limit_error"
    assert all("quota" in answer.text for answer in refused)


@pytest.mark.parametrize(("closed", "status"), [(False, 200), (True, 503)])
async def test_a_store_that_is_down_is_as_for_rates(
    ask: Callable[..., Any],
    redis: RedisServer,
    closed: bool,
    status: int,
) -> None:
    redis.stop()
    settings = {"rate_limit_storage": redis.url, "rate_limit_fail_closed": closed}
    assert [answer.status_code for answer in await ask(CI, 1, **settings)] == [status]


@pytest.mark.parametrize(("closed", "status"), [(False, 200), (True, 503)])
async def test_a_store_that_can_only_be_read_is_down(
    ask: Callable[..., Any],
    start_redis: Callable[..., RedisServer],
    closed: bool,
    status: int,
) -> None:
    full = start_redis("--maxmemory", "1")
    settings = {"rate_limit_storage": full.url, "rate_limit_fail_closed": closed}
    assert [answer.status_code for answer in await ask(CI, 2, **settings)] == [status] * 2
