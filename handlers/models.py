"""GET /api/models: the installed models."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.app import create_app, create_handler
from core.auth import model_allowed
from core.ollama import ollama_client
from core.responses import JSONResponse
from core.schemas import Models


async def models(request: Request) -> Response:
    """Answer with the installed models that the client may use, in Ollama's order.

    What they can do is told on request alone: Ollama has to be asked for each model.
    """
    ollama = ollama_client(request.app.state)
    names = [name for name in await ollama.models() if model_allowed(request.state.client, name)]
    answer = Models(models=names, count=len(names))
    if request.query_params.get("capabilities") == "true":
        answer.capabilities = await ollama.capabilities(names)
    return JSONResponse(answer)


routes = [Route("/api/models", models)]
app = create_app(routes)
handler = create_handler(app)
