"""POST /v1/embeddings: OpenAI's embeddings."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.app import create_app
from core.serving.aws import create_handler
from core.v1.apis import EMBEDDINGS
from core.v1.relay import EventStream, relay


async def embeddings(request: Request) -> Response | EventStream:
    """Relay the request to the same path of Ollama."""
    return await relay(EMBEDDINGS, request)


routes = [Route(EMBEDDINGS.path, embeddings, methods=["POST"])]
app = create_app(routes)
handler = create_handler(app)
