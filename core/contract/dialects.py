"""How each family of paths phrases a failure: `/api` in its own shape, `/v1` as its SDKs expect.

OpenAI's shape is that of Ollama's compatible paths (recordings/v1) and of openai-python's
`APIError`; Anthropic's is that of its API reference, "Errors".
"""

from typing import Any

import msgspec
from starlette.responses import Response

from core.contract.errors import ApiError, EndpointNotFound, InternalError
from core.contract.responses import JSONResponse
from core.contract.schemas import StreamError

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""Anthropic's names; other 4xx are `invalid_request_error`, other 5xx `api_error`."""
_CODES = {
    401: "invalid_api_key",
    403: "permission_error",
    404: "model_not_found",
    429: "rate_limit_exceeded",
    503: "overloaded",
    504: "timeout",
}


class Dialect:
    """The API's own shape."""

    stream_type = b"application/x-ndjson; charset=utf-8"
    """The media type of its streams."""

    def response(self, error: ApiError, request_id: str) -> Response:
        """Return `error` as an answer."""
        return error.response()

    def last_words(self, error: ApiError, request_id: str) -> bytes:
        """Return the end of a stream that has failed with `error`."""
        return msgspec.json.encode(StreamError(error=str(error))) + b"\n"

    def late_refusal(self, error: ApiError) -> bytes:
        """Return the end of a stream with preferred heartbeats: it adds the status of `error`."""
        line = StreamError(error=str(error), status=error.status)
        return msgspec.json.encode(line) + b"\n"


class OpenAI(Dialect):
    """OpenAI's chat completions, completions, embeddings and models."""

    stream_type = b"text/event-stream; charset=utf-8"

    def response(self, error: ApiError, request_id: str) -> Response:
        """Return `error` as an answer."""
        return JSONResponse(self._body(error, request_id), error.status, error.headers)

    def last_words(self, error: ApiError, request_id: str) -> bytes:
        """Return one event: openai-python and openai-node raise on an `error` in its data."""
        return b"data: %b\n\n" % msgspec.json.encode(self._body(error, request_id))

    def _body(self, error: ApiError, request_id: str) -> dict[str, Any]:
        code = None if isinstance(error, EndpointNotFound) else _CODES.get(error.status)
        return {"error": {"message": str(error), "type": _type(error), "param": None, "code": code}}


class Responses(OpenAI):
    """OpenAI's responses, whose streams have their own last event."""

    def last_words(self, error: ApiError, request_id: str) -> bytes:
        """Return a `response.failed`; its `error` makes the SDKs raise, as any stream's does."""
        failure = self._body(error, request_id)
        failed = {
            "type": "response.failed",
            **failure,
            "response": {
                "id": f"resp_{request_id}",
                "object": "response",
                "status": "failed",
                "error": {"code": "server_error", "message": str(error)},
                "output": [],
            },
        }
        return b"event: response.failed\ndata: %b\n\n" % msgspec.json.encode(failed)


class Anthropic(OpenAI):
    """Anthropic's messages."""

    def last_words(self, error: ApiError, request_id: str) -> bytes:
        """Return an `error` event, on which anthropic's SDKs raise."""
        return b"event: error\n" + super().last_words(error, request_id)

    def _body(self, error: ApiError, request_id: str) -> dict[str, Any]:
        return {
            "type": "error",
            "error": {"type": _type(error), "message": str(error)},
            "request_id": request_id,
        }


_NATIVE, _OPENAI, _RESPONSES, _ANTHROPIC = Dialect(), OpenAI(), Responses(), Anthropic()


def dialect_of(path: str) -> Dialect:
    """Return the dialect that clients of `path` understand."""
    if not f"{path}/".startswith("/v1/"):
        return _NATIVE
    if path.startswith("/v1/messages"):
        return _ANTHROPIC
    return _RESPONSES if path.startswith("/v1/responses") else _OPENAI


def _type(error: ApiError) -> str:
    return _TYPES.get(
        error.status, "api_error" if isinstance(error, InternalError) else "invalid_request_error"
    )
