"""POST /api/chat/stream: the answer line by line, as the model writes it."""

from starlette.requests import Request
from starlette.routing import Route

from core.app import create_app, create_handler
from core.requests import read_chat_request
from core.streaming import StreamResponse


async def chat_stream(request: Request) -> StreamResponse:
    """Answer in NDJSON, one token a line; the last line has the conversation's context."""
    state = request.app.state
    message = await read_chat_request(request, state.settings)
    return StreamResponse(
        state.ollama.stream(message), heartbeat_s=state.settings.stream_heartbeat_s
    )


routes = [Route("/api/chat/stream", chat_stream, methods=["POST"])]
app = create_app(routes)
handler = create_handler(app)
