"""GET /api/ready: whether this server is ready for requests; for load balancers."""

from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.contract.errors import ApiError
from core.contract.reports import Health
from core.contract.responses import JSONResponse
from core.contract.retryable import NotReady
from core.contract.schemas import API_VERSION
from core.ollama.client import ollama_client


async def ready(request: Request) -> Response:
    """Answer as /api/health does, but 503 unless Ollama answers and has loaded WARM_UP.

    A missing default model only adds a `warning`.
    """
    state = request.app.state
    if not await state.upstream.is_connected():
        raise NotReady
    if state.loading:
        raise NotReady(f"Models are being loaded: {', '.join(state.loading)}")
    answer = Health(ollama_status="connected", api_version=API_VERSION)
    with suppress(ApiError):
        if problem := await ollama_client(state).default.problem():
            answer.warning = problem
    return JSONResponse(answer)


routes = [Route("/api/ready", ready)]
