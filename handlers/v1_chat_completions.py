"""POST /v1/chat/completions: OpenAI's chat completions, whole or streamed."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.app import create_app
from core.serving.aws import create_handler
from core.v1.apis import CHAT_COMPLETIONS
from core.v1.relay import EventStream, relay


async def chat_completions(request: Request) -> Response | EventStream:
    """Relay the request to the same path of Ollama."""
    return await relay(CHAT_COMPLETIONS, request)


routes = [Route(CHAT_COMPLETIONS.path, chat_completions, methods=["POST"])]
app = create_app(routes)
handler = create_handler(app)
