"""GET /api/models: the installed models."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.app import create_app
from core.context import Caller
from core.contract.reports import Models
from core.contract.responses import JSONResponse
from core.ollama.client import ollama_client
from core.serving.aws import create_handler


async def models(request: Request) -> Response:
    """Answer with the installed models that the client may use, in Ollama's order.

    Capabilities and context lengths are included only on request: they take one question to
    Ollama per model.
    """
    ollama, caller = ollama_client(request.app.state), Caller.of(request.scope)
    names = [name for name in await ollama.models() if caller.may_use(name)]
    answer = Models(models=names, count=len(names))
    if request.query_params.get("capabilities", "").lower() == "true":  # requests sends True
        answer.capabilities, answer.context_lengths = await ollama.describe(names)
    return JSONResponse(answer)


routes = [Route("/api/models", models)]
app = create_app(routes)
handler = create_handler(app)
