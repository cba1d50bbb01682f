"""GET /api/ready: whether this server can answer requests, for load balancers."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.contract.errors import NotReady
from core.contract.responses import JSONResponse
from core.contract.schemas import API_VERSION, Health


async def ready(request: Request) -> Response:
    """Answer as /api/health does, but 503 unless Ollama answers."""
    if not await request.app.state.upstream.is_connected():
        raise NotReady
    return JSONResponse(Health(ollama_status="connected", api_version=API_VERSION))


routes = [Route("/api/ready", ready)]
