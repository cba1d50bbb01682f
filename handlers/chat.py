"""POST /api/chat: one whole answer, or a stream where the request asks for it."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.app import create_app, create_handler
from core.requests import read_chat_request
from core.responses import JSONResponse
from core.streaming import StreamResponse


async def chat(request: Request) -> Response | StreamResponse:
    """Answer when the model has finished; with `"stream": true` as /api/chat/stream does."""
    state = request.app.state
    message = await read_chat_request(request, state.settings)
    if message.stream:
        lines = state.ollama.stream(message)
        return StreamResponse(lines, heartbeat_s=state.settings.stream_heartbeat_s)
    return JSONResponse(await state.ollama.chat(message))


routes = [Route("/api/chat", chat, methods=["POST"])]
app = create_app(routes)
handler = create_handler(app)
