"""An httpx transport over a `Pool`, for clients of httpx; and httpx's errors for the pool's."""

from collections.abc import AsyncIterator

import httpx

from core.ollama.connection import (
    ConnectFailed,
    ConnectionBroken,
    ConnectTimeout,
    InvalidAnswer,
    NotHTTP,
    UpstreamError,
)
from core.ollama.pool import Body, Pool, request_bytes


class ForeignProtocol(httpx.RemoteProtocolError):
    """The upstream does not speak HTTP."""


_ERRORS: dict[type[UpstreamError], type[httpx.TransportError]] = {
    ConnectFailed: httpx.ConnectError,
    ConnectTimeout: httpx.ConnectTimeout,
    ConnectionBroken: httpx.ReadError,
    InvalidAnswer: httpx.RemoteProtocolError,
    NotHTTP: ForeignProtocol,
}


def as_httpx(error: UpstreamError) -> httpx.TransportError:
    """Return httpx's counterpart of `error`, with the same cause."""
    counterpart = _ERRORS[type(error)](str(error))
    counterpart.__cause__ = error.__cause__
    return counterpart


class HTTPTransport(httpx.AsyncBaseTransport):
    """Sends every request through a pool, to its one origin."""

    def __init__(self, pool: Pool) -> None:
        """Send through `pool`, which its creator must close."""
        self._pool = pool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request`, whose body is in memory, and return its response, the body still unread.

        Raises:
            httpx.ConnectError: connecting failed; nothing was sent.
            httpx.ConnectTimeout: connecting took too long; nothing was sent.
            httpx.ReadError: the connection broke; the request may have been processed.
            httpx.RemoteProtocolError: the answer is not HTTP, or is incomplete.
        """
        assert isinstance(request.stream, httpx.AsyncByteStream)
        content = b"".join([part async for part in request.stream])
        method, target = request.method.encode(), request.url.raw_path
        data = request_bytes(method, target, request.headers.raw, content)
        try:
            status, headers, body = await self._pool.send(data)
        except UpstreamError as error:
            raise as_httpx(error) from error.__cause__
        return httpx.Response(status, headers=headers, stream=_Stream(body))


class _Stream(httpx.AsyncByteStream):
    def __init__(self, body: Body) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            data = await self._body.read()
        except UpstreamError as error:
            raise as_httpx(error) from error.__cause__
        if data:
            return data
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._body.close()
