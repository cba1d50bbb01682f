"""GET /api/health: whether this server and Ollama are up."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.app import create_app
from core.contract.reports import Health
from core.contract.responses import JSONResponse
from core.contract.schemas import API_VERSION
from core.serving.aws import create_handler


async def health(request: Request) -> Response:
    """Answer 200 within two seconds, whatever state Ollama is in."""
    connected = await request.app.state.upstream.is_connected()
    return JSONResponse(
        Health(
            ollama_status="connected" if connected else "disconnected",
            api_version=API_VERSION,
        )
    )


routes = [Route("/api/health", health)]
app = create_app(routes)
handler = create_handler(app)
