"""POST /api/chat: one whole answer, or a stream if the request asks for one."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.app import create_app
from core.chat.stream import StreamResponse
from core.chat.turn import Turn
from core.contract.responses import JSONResponse
from core.serving.aws import create_handler


async def chat(request: Request) -> Response | StreamResponse:
    """Answer once the model has finished, or with `"stream": true` as /api/chat/stream does."""
    turn = await Turn.of(request)
    return turn.stream() if turn.wants_stream else JSONResponse(await turn.answer())


routes = [Route("/api/chat", chat, methods=["POST"])]
app = create_app(routes)
handler = create_handler(app)
