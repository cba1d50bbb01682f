"""GET /metrics: metrics for Prometheus."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def metrics(request: Request) -> Response:
    """Answer in Prometheus' text format."""
    figures = request.app.state.metrics
    return Response(figures.text(), media_type=figures.content_type)


routes = [Route("/metrics", metrics)]
