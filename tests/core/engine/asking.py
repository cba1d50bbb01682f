"""Requests to the engine, as an Ollama client makes them."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx

MODEL = "smollm2:135m"
FRANCE = "What is the capital of France?"


def asked(prompt: str, *, num_predict: int = 40, **fields: Any) -> dict[str, Any]:
    """Return a /api/generate body that gives the same answer each time."""
    options = {"temperature": 0, "seed": 1, "num_predict": num_predict, **fields.pop("options", {})}
    return {"model": MODEL, "prompt": prompt, "options": options, **fields}


async def whole(engine: httpx.AsyncClient, prompt: str, **fields: Any) -> dict[str, Any]:
    """Return the plain answer to `prompt`."""
    response = await engine.post("/api/generate", json=asked(prompt, stream=False, **fields))
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def lines(
    engine: httpx.AsyncClient, prompt: str, **fields: Any
) -> AsyncIterator[dict[str, Any]]:
    """Yield the lines of a streamed answer to `prompt`; each arrives in its own chunk."""
    async with engine.stream("POST", "/api/generate", json=asked(prompt, **fields)) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/x-ndjson"
        rest = b""
        async for data in response.aiter_raw():
            *complete, rest = (rest + data).split(b"\n")
            for line in complete:
                yield json.loads(line)
