"""A function as commonly written: everything is imported and created at import time."""

import os
from typing import Any

import httpx
from mangum import Mangum
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

client = httpx.AsyncClient(base_url=os.environ["OLLAMA_BASE_URL"])


async def health(request: Request) -> JSONResponse:
    answer = await client.get("/api/version")
    status = "connected" if answer.status_code == httpx.codes.OK else "disconnected"
    return JSONResponse({"status": "ok", "ollama_status": status, "api_version": "1.0.0"})


handler: Any = Mangum(Starlette(routes=[Route("/api/health", health)]), lifespan="off")
