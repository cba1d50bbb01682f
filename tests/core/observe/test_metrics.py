"""The Prometheus metrics of requests."""

import asyncio
from pathlib import Path

import httpx

from core.keys.editing import create
from core.settings.networks import Networks
from tests.conftest import Serve
from tests.fake_ollama import (
    Connection,
    FakeOllama,
    Request,
    error,
)

CHAT = {"message": "내 비밀 prompt", "model": "smollm2:135m"}


async def test_metrics_count_and_their_labels_are_bounded(serve: Serve, fake: FakeOllama) -> None:
    url = await serve(rate_limit="8/hour", monitor_clients=Networks("none"))
    async with httpx.AsyncClient() as client:
        for path in ("/api/chat", "/api/chat/", "/api/chat/stream"):
            await client.post(url + path, json=CHAT)
        await client.post(f"{url}/api/chat", json={**CHAT, "model": "no-such"})
        await client.get(f"{url}/api/secret-path-1")
        await client.request("PATCH", f"{url}/api/chat")
        answer = await client.get(f"{url}/metrics")
        for _ in range(3):
            limited = await client.get(f"{url}/metrics")
    assert limited.status_code == 429
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = answer.text
    name = "ollama_web_api"
    assert f'{name}_requests_total{{method="POST",path="/api/chat",status="200"}} 2.0' in text
    assert (
        f'{name}_requests_total{{method="POST",path="/api/chat/stream",status="200"}} 1.0' in text
    )
    assert f'{name}_requests_total{{method="POST",path="/api/chat",status="404"}} 1.0' in text
    assert f'{name}_requests_total{{method="GET",path="other",status="404"}} 1.0' in text
    assert f'{name}_requests_total{{method="other",path="/api/chat",status="405"}} 1.0' in text
    assert f'{name}_tokens_total{{model="smollm2:135m"}} 24.0' in text
    assert f'{name}_first_token_seconds_count{{model="smollm2:135m"}} 1.0' in text
    assert f"{name}_requests_in_flight 1.0" in text
    assert f"{name}_queue_waiting 0.0" in text
    assert "no-such" not in text
    assert "secret" not in text


async def test_an_unknown_model_name_does_not_become_a_label(
    serve: Serve, fake: FakeOllama
) -> None:
    async def missing(connection: Connection, request: Request) -> None:
        await asyncio.sleep(0.05)
        await error(404, "model 'no-such' not found")(connection, request)

    fake.reply(missing)
    url = await serve(stream_heartbeat_s=0.01)  # the 200 comes before the model is known
    async with httpx.AsyncClient() as client:
        chat = {**CHAT, "model": "no-such"}
        answer = await client.post(f"{url}/api/chat/stream", json=chat)
        assert answer.status_code == 200
        assert "is not installed" in answer.text
        for path in ("/", "/api/health///"):
            await client.get(url + path)
        text = (await client.get(f"{url}/metrics")).text
    assert "no-such" not in text
    name = "ollama_web_api_requests_total"
    assert f'{name}{{method="GET",path="/",status="200"}} 1.0' in text
    assert f'{name}{{method="GET",path="other",status="404"}} 1.0' in text


async def test_a_limited_key_sees_its_own_models_only(
    serve: Serve, fake: FakeOllama, tmp_path: Path
) -> None:
    path = tmp_path / "keys.json"
    limited = create(path, "limited", models=("llama*",))
    url = await serve(api_keys_file=str(path))
    async with httpx.AsyncClient(base_url=url) as client:
        await client.post("/api/chat", json=CHAT)
        all_ = (await client.get("/metrics")).text
        theirs = (await client.get("/metrics", headers={"X-API-Key": limited})).text
    sample = 'ollama_web_api_tokens_total{model="smollm2:135m"}'
    assert sample in all_
    assert "smollm2" not in theirs
    assert 'ollama_web_api_requests_total{method="POST",path="/api/chat",status="200"} 1' in theirs
    assert "# TYPE ollama_web_api_first_token_seconds histogram" in theirs
