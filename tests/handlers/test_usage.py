from itertools import pairwise
from pathlib import Path

import httpx

from core.app import create_app
from core.settings.schema import Settings
from core.usage.ledger import read_file
from handlers import asgi
from tests.compatible import HEADERS, KEYS
from tests.conftest import Serve
from tests.fake_ollama import COMPATIBLE, FakeOllama
from tests.gateway import shut_down

CHAT = {"message": "비밀", "model": "smollm2:135m"}


async def test_a_caller_reads_its_own_usage_and_no_other_s(
    serve: Serve, fake: FakeOllama, tmp_path: Path
) -> None:
    path = tmp_path / "usage.db"
    url = await serve(api_keys=KEYS, usage_file=str(path))
    async with httpx.AsyncClient(base_url=url) as client:
        for endpoint in ("/api/chat", "/api/chat/stream"):
            assert (await client.post(endpoint, json=CHAT, headers=HEADERS)).status_code == 200
        assert (await client.post("/api/chat", json=CHAT)).status_code == 200
        own = (await client.get("/api/usage", headers=HEADERS)).json()
        anonymous = (await client.get("/api/usage")).json()
        later = (await client.get("/api/usage", params={"since": "9999-12-31"})).json()
        wrong = await client.get("/api/usage", params={"since": "today"})
    assert own["caller"] == "key:sdk"
    (row,) = own["usage"]
    assert (row["model"], row["requests"], row["prompt_tokens"]) == ("smollm2:135m", 2, 32)
    assert row["tokens"] > 0
    assert [row["requests"] for row in anonymous["usage"]] == [1]
    assert later["usage"] == []
    assert wrong.status_code == 400
    assert "비밀".encode() not in path.read_bytes()
    assert sum(row.requests for row in read_file(str(path))) == 3


async def test_a_request_that_has_just_ended_counts_even_if_the_server_stops(
    fake: FakeOllama, tmp_path: Path
) -> None:
    path = tmp_path / "usage.db"
    settings = Settings(ollama_base_url=fake.url, usage_file=str(path))
    app = create_app(asgi.routes, settings, instrumented=True)
    app.recorder.in_flight = 1  # another request, which takes too long to stop
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.post("/api/chat", json=CHAT)).status_code == 200
    await shut_down(app)
    assert sum(row.requests for row in read_file(str(path))) == 1


async def test_every_compatible_path_counts(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "usage.db"
    url = await serve(api_keys=KEYS, usage_file=str(path), rate_limit="off")
    body = {"model": "smollm2:135m", "messages": [{"role": "user", "content": "비밀"}]}
    counted = []
    async with httpx.AsyncClient(base_url=url, headers=HEADERS) as client:
        for endpoint in COMPATIBLE:
            for stream in (False, True):
                answer = await client.post(endpoint, json={**body, "stream": stream})
                assert answer.status_code == 200, answer.text
                (row,) = (await client.get("/api/usage")).json()["usage"]
                counted.append((row["requests"], row["prompt_tokens"], row["tokens"]))
    gained = [
        tuple(b - a for a, b in zip(before, after, strict=True))
        for before, after in pairwise([(0, 0, 0), *counted])
    ]
    assert {requests for requests, _, _ in gained} == {1}
    assert all(prompt > 0 for _, prompt, _ in gained)
    assert [bool(written) for _, _, written in gained] == [
        not endpoint.endswith("embeddings") for endpoint in COMPATIBLE for _ in range(2)
    ]
    assert "비밀".encode() not in path.read_bytes()
