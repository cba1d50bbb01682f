"""GET /metrics: metrics for Prometheus, of the models that the client may use."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.context import Caller


async def metrics(request: Request) -> Response:
    """Answer in Prometheus' text format."""
    request.app.state.recorder.flush()
    figures = request.app.state.metrics
    text = figures.text(Caller.of(request.scope).may_use)
    return Response(text, media_type=figures.content_type)


routes = [Route("/metrics", metrics)]
