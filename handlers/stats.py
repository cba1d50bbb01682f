"""GET /api/stats: the response times of the models."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.auth import model_allowed
from core.responses import JSONResponse
from core.schemas import StatsAnswer


async def stats(request: Request) -> Response:
    """Answer with the figures of the models that the client may use."""
    figures = request.app.state.stats.by_model()
    client = request.state.client
    return JSONResponse(StatsAnswer(models=[m for m in figures if model_allowed(client, m.model)]))


routes = [Route("/api/stats", stats)]
