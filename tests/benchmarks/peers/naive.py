"""The obvious asynchronous proxy: Starlette and an httpx client, JSON line by line."""

import json
import os
from collections.abc import AsyncIterator
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

URL = os.environ["OLLAMA_BASE_URL"] + "/api/chat"
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20)
client = httpx.AsyncClient(timeout=300, limits=LIMITS)


def request_to_ollama(data: dict[str, Any], *, stream: bool) -> dict[str, Any]:
    messages = [{"role": "user", "content": data["message"]}]
    return {"model": data["model"], "messages": messages, "stream": stream}


async def chat(request: Request) -> JSONResponse:
    data = await request.json()
    body = request_to_ollama(data, stream=False)
    answer = (await client.post(URL, json=body)).json()
    fields = {"response": answer["message"]["content"], "done": answer["done"], "context": []}
    return JSONResponse({"success": True, "model": data["model"], **fields})


async def chat_stream(request: Request) -> StreamingResponse:
    data = await request.json()
    body = request_to_ollama(data, stream=True)

    async def lines() -> AsyncIterator[str]:
        async with client.stream("POST", URL, json=body) as answer:
            async for line in answer.aiter_lines():
                chunk = json.loads(line)
                token = {"response": chunk["message"]["content"], "done": chunk["done"]}
                if chunk["done"]:
                    token["context"] = []
                yield json.dumps(token) + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


app = Starlette(
    routes=[
        Route("/api/chat", chat, methods=["POST"]),
        Route("/api/chat/stream", chat_stream, methods=["POST"]),
    ]
)
