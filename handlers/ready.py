"""GET /api/ready: whether this server can answer requests at once, for load balancers."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.contract.errors import NotReady
from core.contract.responses import JSONResponse
from core.contract.schemas import API_VERSION, Health


async def ready(request: Request) -> Response:
    """Answer as /api/health does, but 503 unless Ollama answers and has loaded WARM_UP."""
    state = request.app.state
    if not await state.upstream.is_connected():
        raise NotReady
    if state.loading:
        raise NotReady(f"Models are being loaded: {', '.join(state.loading)}")
    return JSONResponse(Health(ollama_status="connected", api_version=API_VERSION))


routes = [Route("/api/ready", ready)]
