"""Compares the engine's embeddings with those of a real Ollama."""

import json
import math
from array import array
from base64 import b64decode
from typing import Any

import httpx
import pytest

from tests.core.engine.asking import MODEL, repeat
from tests.recorded import Recorded


async def test_embeds_as_recorded(engine: httpx.AsyncClient) -> None:
    recorded = json.loads(Recorded("v1/embeddings").body)
    answer = (await repeat(engine, "embeddings")).json()
    assert (answer["model"], answer["usage"]) == (MODEL, recorded["usage"])
    for one, other in zip(answer["data"], recorded["data"], strict=True):
        pairs = zip(one["embedding"], other["embedding"], strict=True)
        assert sum(a * b for a, b in pairs) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("dimensions", [1, 64, 576, 577])
async def test_embeds_in_fewer_dimensions(engine: httpx.AsyncClient, dimensions: int) -> None:
    body: dict[str, Any] = {"model": MODEL, "input": ["a", "안녕"]}
    whole = (await engine.post("/v1/embeddings", json=body)).json()
    body["dimensions"] = dimensions
    answer = (await engine.post("/v1/embeddings", json=body)).json()
    assert answer["usage"] == whole["usage"]
    for short, full in zip(answer["data"], whole["data"], strict=True):
        first = full["embedding"][:dimensions]
        length = math.hypot(*first)
        assert short["embedding"] == pytest.approx([x / length for x in first], abs=1e-6)
    body["encoding_format"] = "base64"
    encoded = (await engine.post("/v1/embeddings", json=body)).json()
    for one, other in zip(encoded["data"], answer["data"], strict=True):
        numbers = array("f", b64decode(one["embedding"])).tolist()
        assert numbers == pytest.approx(other["embedding"], abs=1e-6)


async def test_a_text_longer_than_the_context_is_not_embedded(engine: httpx.AsyncClient) -> None:
    body = {"model": MODEL, "input": "word " * 200}
    assert (await engine.post("/v1/embeddings", json=body)).status_code == 200
    for text, status in (("word " * 5000, 400), ("", 400)):
        response = await engine.post("/v1/embeddings", json={**body, "input": text})
        assert response.status_code == status
        assert response.json()["error"]["type"] == "invalid_request_error"
