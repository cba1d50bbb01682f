"""Requests that harm Ollama never reach it."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from core.app import create_app
from core.chat.body import SMALL_BODY_BYTES
from core.settings.schema import Settings
from handlers import asgi
from tests.fake_ollama import FakeOllama
from tests.gateway import shut_down
from tests.security.harmful import HARMFUL, Harmful

MODEL = "smollm2:135m"
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJg"
)


@pytest.fixture
async def gateway(fake: FakeOllama) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(asgi.routes, Settings(ollama_base_url=fake.url, default_model=MODEL))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client
    await shut_down(app)


@pytest.mark.parametrize("case", HARMFUL, ids=lambda case: str(case.name))
async def test_a_harmful_request_is_refused_naming_field_and_bound(
    gateway: httpx.AsyncClient, fake: FakeOllama, case: Harmful
) -> None:
    body = msgspec.json.encode({"message": "hi", **case.fields})
    assert len(body) < SMALL_BODY_BYTES, "no limit on sizes stops it"
    headers = {"Content-Type": "application/json"}
    for path in ("/api/chat", "/api/chat/stream"):
        answer = await gateway.post(path, content=body, headers=headers)
        assert answer.status_code == 400
        assert answer.json()["error"].startswith(case.refusal)
    assert not fake.asked()


@pytest.mark.parametrize(
    "fields",
    [
        {"format": {"type": "string", "maxLength": 2000}},
        {"format": {"type": "string", "pattern": "^[a-z]{1,2000}$"}},
        {"format": {"type": "array", "items": {"type": "integer"}, "maxItems": 2000}},
        {"format": {"type": "integer", "minimum": 5, "maximum": 5}},
        {"format": {"type": "object", "properties": {f"p{n}": {} for n in range(256)}}},
        {"format": "json"},
        {"options": {"repeat_penalty": 0.1, "repeat_last_n": 131_072, "stop": ["x"]}},
        {"options": {"repeat_last_n": 0, "temperature": 0, "top_k": 0}},
        {"options": {"temperature": 0.001, "top_k": 2**20, "seed": -1, "num_predict": -1}},
    ],
)
async def test_what_is_just_within_the_bounds_reaches_ollama(
    gateway: httpx.AsyncClient, fake: FakeOllama, fields: dict[str, Any]
) -> None:
    answer = await gateway.post("/api/chat", json={"message": "hi", **fields})
    assert answer.status_code == 200
    sent = fake.asked()[-1].json
    assert sent.get("format") == fields.get("format")
    assert sent["options"].items() >= {**fields.get("options", {}), "num_predict": 8192}.items()


@pytest.mark.parametrize(
    ("capabilities", "status"),
    [(["completion"], 400), ([], 400), (["completion", "vision"], 200), (None, 200)],
)
@pytest.mark.parametrize(
    "body",
    [
        {"message": "What is it?", "images": [PIXEL]},
        {"messages": [{"role": "user", "content": "What is it?", "images": [PIXEL]}]},
    ],
)
async def test_images_go_to_models_that_see(
    gateway: httpx.AsyncClient,
    fake: FakeOllama,
    body: dict[str, Any],
    capabilities: list[str] | None,
    status: int,
) -> None:
    fake.capabilities = capabilities
    answer = await gateway.post("/api/chat", json=body)
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["error"].startswith(f"images: model '{MODEL}' cannot see images")
        assert not fake.asked()
    else:
        assert fake.asked()[-1].json["messages"][-1]["images"] == [PIXEL]
