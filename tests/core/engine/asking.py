"""Requests to the engine, as an Ollama client makes them."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx

from tests.recorded import FOLDER

MODEL = "smollm2:135m"
FRANCE = "What is the capital of France?"
REQUESTS: dict[str, dict[str, Any]] = {
    entry["name"]: entry["request"]
    for entry in json.loads((FOLDER / "v1/manifest.json").read_text("utf-8"))
}
"""The requests whose answers were recorded, by name."""


async def repeat(engine: httpx.AsyncClient, name: str) -> httpx.Response:
    """Return the answer to a recorded request."""
    request = REQUESTS[name]
    body = request["body"]
    content = {"content": body} if isinstance(body, str) else {"json": body}
    return await engine.request(request["method"], request["path"], **content)


def media_type(response: httpx.Response) -> str:
    kind: str = response.headers.get("content-type", "")
    return kind.partition(";")[0]


def asked(prompt: str, *, num_predict: int = 40, **fields: Any) -> dict[str, Any]:
    """Return a /api/generate body that gives the same answer each time."""
    options = {"temperature": 0, "seed": 1, "num_predict": num_predict, **fields.pop("options", {})}
    return {"model": MODEL, "prompt": prompt, "options": options, **fields}


async def whole(engine: httpx.AsyncClient, prompt: str, **fields: Any) -> dict[str, Any]:
    """Return the plain answer to `prompt`."""
    return await answer(engine, "/api/generate", asked(prompt, **fields))


async def answer(engine: httpx.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return the plain answer to `body`."""
    response = await engine.post(path, json={**body, "stream": False})
    assert response.status_code == 200, response.text
    parsed: dict[str, Any] = response.json()
    return parsed


def lines(engine: httpx.AsyncClient, prompt: str, **fields: Any) -> AsyncGenerator[dict[str, Any]]:
    """Yield the lines of a streamed answer to `prompt`; each arrives in its own chunk."""
    return streamed(engine, "/api/generate", asked(prompt, **fields))


async def streamed(
    engine: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> AsyncGenerator[dict[str, Any]]:
    """Yield the lines of a streamed answer to `body`."""
    async with engine.stream("POST", path, json=body) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/x-ndjson"
        rest = b""
        async for data in response.aiter_raw():
            *complete, rest = (rest + data).split(b"\n")
            for line in complete:
                yield json.loads(line)
