"""An API gateway for tests: turns httpx requests into HTTP API events for a Lambda handler."""

import asyncio
import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from mangum.types import ASGI

from core.serving.aws import create_handler


class Context:
    """The part of a Lambda context that is used here."""

    def __init__(self, remaining_ms: int = 900_000) -> None:
        self.remaining_ms = remaining_ms

    def get_remaining_time_in_millis(self) -> int:
        return self.remaining_ms


def http_api_event(request: httpx.Request, stage: str = "$default") -> dict[str, Any]:
    """Return the event (payload format 2.0) with which a gateway forwards `request`."""
    path = request.url.path if stage == "$default" else f"/{stage}{request.url.path}"
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": request.url.query.decode(),
        "headers": dict(request.headers),
        "requestContext": {
            "http": {
                "method": request.method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": request.headers.get("user-agent", ""),
            },
            "stage": stage,
        },
        "body": base64.b64encode(request.content).decode(),
        "isBase64Encoded": True,
    }


class MangumTransport(httpx.AsyncBaseTransport):
    """Calls a Lambda handler in its own thread, whose event loop lives as long as the thread."""

    def __init__(self, app: ASGI, context: Context | None = None) -> None:
        self._app = app
        self._handler = create_handler(app)
        self._context = context or Context()
        self._thread = ThreadPoolExecutor(1)
        self._is_used = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self._is_used = True
        result = await asyncio.get_running_loop().run_in_executor(
            self._thread, self._handle, http_api_event(request)
        )
        body = result["body"]
        return httpx.Response(
            result["statusCode"],
            headers=result["headers"],
            content=base64.b64decode(body) if result["isBase64Encoded"] else body.encode(),
        )

    def _handle(self, event: dict[str, Any]) -> dict[str, Any]:
        return self._handler(event, self._context)  # type: ignore[arg-type]

    async def aclose(self) -> None:
        if self._is_used:
            self._thread.submit(_close_event_loop, self._app).result()
        self._thread.shutdown()


async def shut_down(app: ASGI) -> None:
    """Run the application's lifespan, so that it releases its resources."""
    messages: asyncio.Queue[Any] = asyncio.Queue()
    messages.put_nowait({"type": "lifespan.startup"})
    messages.put_nowait({"type": "lifespan.shutdown"})
    await app({"type": "lifespan"}, messages.get, _ignore)


async def _ignore(message: Any) -> None:
    pass


def _close_event_loop(app: ASGI) -> None:
    loop = asyncio.get_event_loop()
    loop.run_until_complete(shut_down(app))
    tasks = asyncio.all_tasks(loop)
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.close()
