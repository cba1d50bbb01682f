"""The obvious asynchronous proxy: Starlette and an httpx client, JSON line by line."""

import json
import os
from collections.abc import AsyncIterator

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

URL = os.environ["OLLAMA_BASE_URL"] + "/api/generate"
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20)
client = httpx.AsyncClient(timeout=300, limits=LIMITS)


async def chat(request: Request) -> JSONResponse:
    data = await request.json()
    body = {"model": data["model"], "prompt": data["message"], "stream": False}
    answer = (await client.post(URL, json=body)).json()
    fields = {name: answer[name] for name in ("response", "done", "context")}
    return JSONResponse({"success": True, "model": data["model"], **fields})


async def chat_stream(request: Request) -> StreamingResponse:
    data = await request.json()
    body = {"model": data["model"], "prompt": data["message"], "stream": True}

    async def lines() -> AsyncIterator[str]:
        async with client.stream("POST", URL, json=body) as answer:
            async for line in answer.aiter_lines():
                chunk = json.loads(line)
                token = {"response": chunk["response"], "done": chunk["done"]}
                if chunk["done"]:
                    token["context"] = chunk["context"]
                yield json.dumps(token) + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


app = Starlette(
    routes=[
        Route("/api/chat", chat, methods=["POST"]),
        Route("/api/chat/stream", chat_stream, methods=["POST"]),
    ]
)
