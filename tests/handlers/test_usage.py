import json
from pathlib import Path

import httpx

from core.keys.records import digest
from core.usage.ledger import read_file
from tests.conftest import Serve
from tests.fake_ollama import FakeOllama

KEY = "owa_0123abcd_for-tests"
STORED = {"name": "ci", "id": "0123abcd", "sha256": digest(KEY), "created": "2026-01-01T00:00:00Z"}
HEADERS = {"X-API-Key": KEY}
CHAT = {"message": "비밀", "model": "smollm2:135m"}


async def test_a_caller_reads_its_own_usage_and_no_other_s(
    serve: Serve, fake: FakeOllama, tmp_path: Path
) -> None:
    path = tmp_path / "usage.db"
    url = await serve(api_keys=json.dumps([STORED]), usage_file=str(path))
    async with httpx.AsyncClient(base_url=url) as client:
        for endpoint in ("/api/chat", "/api/chat/stream"):
            assert (await client.post(endpoint, json=CHAT, headers=HEADERS)).status_code == 200
        assert (await client.post("/api/chat", json=CHAT)).status_code == 200
        own = (await client.get("/api/usage", headers=HEADERS)).json()
        anonymous = (await client.get("/api/usage")).json()
        later = (await client.get("/api/usage", params={"since": "9999-12-31"})).json()
        wrong = await client.get("/api/usage", params={"since": "today"})
    assert own["caller"] == "key:ci"
    (row,) = own["usage"]
    assert (row["model"], row["requests"], row["prompt_tokens"]) == ("smollm2:135m", 2, 32)
    assert row["tokens"] > 0
    assert [row["requests"] for row in anonymous["usage"]] == [1]
    assert later["usage"] == []
    assert wrong.status_code == 400
    assert "비밀".encode() not in path.read_bytes()
    assert sum(row.requests for row in read_file(str(path))) == 3
