"""POST /api/chat/stream: the answer line by line, as the model writes it."""

from starlette.requests import Request
from starlette.routing import Route

from core.app import create_app
from core.chat.stream import StreamResponse
from core.chat.turn import Turn
from core.serving.aws import create_handler


async def chat_stream(request: Request) -> StreamResponse:
    """Answer in NDJSON, one token per line; the last line has the conversation's context."""
    turn = await Turn.of(request)
    return turn.stream()


routes = [Route("/api/chat/stream", chat_stream, methods=["POST"])]
app = create_app(routes)
handler = create_handler(app)
