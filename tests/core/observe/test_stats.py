"""The statistics of requests."""

import asyncio

import httpx

from core.context import Record
from core.observe.stats import Stats
from tests.conftest import Serve
from tests.fake_ollama import (
    FakeOllama,
    never_answers,
    stalls_after,
    tokens,
)

CHAT = {"message": "내 비밀 prompt", "model": "smollm2:135m"}


def record(**values: object) -> Record:
    fixed = {"request_id": "i", "method": "POST", "path": "/api/chat", "started_at": 0.0}
    return Record(**{**fixed, **values})  # type: ignore[arg-type]


async def test_stats_match_the_specifications_table(serve: Serve, fake: FakeOllama) -> None:
    url = await serve()
    async with httpx.AsyncClient() as client:
        for model in ("smollm2:135m", "SmolLM2:135M", "llama3.1:70b"):
            fake.reply(tokens(pace_s=0.01))
            await client.post(f"{url}/api/chat/stream", json={**CHAT, "model": model})
        figures = (await client.get(f"{url}/api/stats")).json()["models"]
    assert [(each["model"], each["count"]) for each in figures] == [
        ("smollm2:135m", 2),
        ("llama3.1:70b", 1),
    ]
    assert 0.07 <= figures[0]["p50_s"] <= figures[0]["p95_s"]
    assert 0.01 <= figures[0]["first_token_mean_s"] <= figures[0]["mean_s"]
    assert figures[0]["tokens_per_s"] > 10


async def test_stats_report_the_queue(serve: Serve, fake: FakeOllama) -> None:
    fake.default = never_answers
    url = await serve(max_concurrent=1)
    async with httpx.AsyncClient() as client, asyncio.TaskGroup() as group:
        chats = [group.create_task(client.post(f"{url}/api/chat", json=CHAT)) for _ in range(3)]
        async with asyncio.timeout(5):
            while True:
                queue = (await client.get(f"{url}/api/stats")).json()["queue"]
                if queue == {"running": 1, "waiting": 2}:
                    break
        for chat in chats:
            chat.cancel()


def test_percentiles_cover_the_latest_answers() -> None:
    stats = Stats()
    for duration in range(2000):
        stats.observe(record(model="m", status=200, duration_s=float(duration), tokens=10))
    (figures,) = stats.by_model()
    assert figures.count == 2000
    assert (figures.mean_s, figures.p50_s, figures.p95_s) == (1499.5, 1499, 1949)
    assert figures.first_token_mean_s is None
    stats.observe(record(model="m", status=200, duration_s=1.0, tokens=10))
    assert stats.by_model()[0].count == 2001


async def test_an_answer_counts_at_once_while_another_request_runs(
    serve: Serve, fake: FakeOllama
) -> None:
    async with httpx.AsyncClient(base_url=await serve()) as client:
        fake.reply(stalls_after(1))
        async with client.stream("POST", "/api/chat/stream", json={"message": "Hi"}) as stream:
            await anext(stream.aiter_bytes())
            await client.post("/api/chat", json={"message": "Hi"})
            stats = (await client.get("/api/stats")).json()
            usage = (await client.get("/api/usage")).json()
            metrics = (await client.get("/metrics")).text
    assert [model["count"] for model in stats["models"]] == [1]
    assert [row["requests"] for row in usage["usage"]] == [1]
    assert 'requests_total{method="POST",path="/api/chat",status="200"} 1' in metrics
