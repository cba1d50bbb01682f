"""GET /api/models: the installed models."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.app import create_app, create_handler
from core.responses import JSONResponse
from core.schemas import Models


async def models(request: Request) -> Response:
    """Answer with the names of the installed models, in Ollama's order."""
    names = await request.app.state.ollama.models()
    return JSONResponse(Models(models=names, count=len(names)))


routes = [Route("/api/models", models)]
app = create_app(routes)
handler = create_handler(app)
