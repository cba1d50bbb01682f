"""GET /api/ready: whether this server can answer requests, for load balancers."""

from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.contract.errors import ApiError, NotReady
from core.contract.responses import JSONResponse
from core.contract.schemas import API_VERSION, Health
from core.ollama.client import ollama_client


async def ready(request: Request) -> Response:
    """Answer as /api/health does, but 503 unless Ollama answers; warn of a missing model."""
    if not await request.app.state.upstream.is_connected():
        raise NotReady
    answer = Health(ollama_status="connected", api_version=API_VERSION)
    with suppress(ApiError):
        if problem := await ollama_client(request.app.state).default.problem():
            answer.warning = problem
    return JSONResponse(answer)


routes = [Route("/api/ready", ready)]
