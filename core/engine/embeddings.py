"""The engine's POST /v1/embeddings."""

import math
from array import array
from base64 import b64decode, b64encode

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.engine.answers import check_model
from core.engine.bodies import decode
from core.engine.errors import EngineError
from core.engine.llama import Llama
from core.engine.schemas import EmbedRequest
from core.engine.v1 import check_name


async def embeddings(request: Request) -> Response:
    """POST /v1/embeddings."""
    asked = decode(await request.body(), EmbedRequest, empty="EOF")
    check_name(asked.model)
    check_model(asked.model)
    if not asked.input:
        raise EngineError("invalid input", 400)
    llama: Llama = request.app.state.llama
    body = await llama.embed(msgspec.to_builtins(asked))
    if asked.dimensions and asked.dimensions > 0:
        body = _shortened(body, asked.dimensions)
    return Response(body, media_type="application/json")


def _shortened(body: bytes, dimensions: int) -> bytes:
    """Return the embeddings in `body` with the first `dimensions` only, again of length 1."""
    answer = msgspec.json.decode(body)
    for entry in answer["data"]:
        given = entry["embedding"]
        is_text = isinstance(given, str)
        numbers = array("f", b64decode(given) if is_text else given)[:dimensions]
        length = math.hypot(*numbers) or 1
        short = array("f", [number / length for number in numbers])
        entry["embedding"] = b64encode(short.tobytes()).decode() if is_text else short.tolist()
    return msgspec.json.encode(answer)


routes = [Route("/v1/embeddings", embeddings, methods=["POST"])]
