"""GET /api/openapi.json: a description of this API, for developers' tools."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.app import create_app
from core.contract.openapi import openapi_document
from core.contract.responses import JSONResponse
from core.serving.aws import create_handler


async def openapi(request: Request) -> Response:
    """Answer with the OpenAPI 3.1 document."""
    return JSONResponse(openapi_document())


routes = [Route("/api/openapi.json", openapi)]
app = create_app(routes)
handler = create_handler(app)
