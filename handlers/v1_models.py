"""GET /v1/models and /v1/models/{model}: the installed models, as OpenAI's SDKs list them."""

from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.app import create_app
from core.context import Caller
from core.contract.errors import ModelNotFound
from core.contract.responses import JSONResponse
from core.ollama.client import Tag, ollama_client
from core.serving.aws import create_handler


async def models(request: Request) -> Response:
    """Answer with the models that the client may use, in Ollama's order."""
    entries = [_entry(tag) for tag in await _usable(request)]
    return JSONResponse({"object": "list", "data": entries})


async def model(request: Request) -> Response:
    """Answer with the model that the path names in any case, if the client may use it."""
    # The SDKs send a slash as %2F, which stays so in a path.
    wanted = unquote(request.path_params["model"]).removesuffix("/").removesuffix(":latest")
    if not wanted:  # /v1/models/
        return await models(request)
    usable = await _usable(request)
    for tag in usable:
        if tag.name.removesuffix(":latest").lower() == wanted.lower():
            return JSONResponse(_entry(tag))
    raise ModelNotFound(wanted, [tag.name for tag in usable])


async def _usable(request: Request) -> list[Tag]:
    caller = Caller.of(request.scope)
    tags = await ollama_client(request.app.state).tags()
    return [tag for tag in tags if caller.may_use(tag.name)]


def _entry(tag: Tag) -> dict[str, object]:
    created = int(tag.modified_at.timestamp()) if tag.modified_at else 0
    return {"id": tag.name, "object": "model", "created": created, "owned_by": "library"}


routes = [Route("/v1/models", models), Route("/v1/models/{model:path}", model)]
app = create_app(routes)
handler = create_handler(app)
