"""POST /v1/messages: Anthropic's messages, whole or streamed."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.app import create_app
from core.serving.aws import create_handler
from core.v1.apis import MESSAGES
from core.v1.relay import EventStream, relay


async def messages(request: Request) -> Response | EventStream:
    """Relay the request to the same path of Ollama."""
    return await relay(MESSAGES, request)


routes = [Route(MESSAGES.path, messages, methods=["POST"])]
app = create_app(routes)
handler = create_handler(app)
