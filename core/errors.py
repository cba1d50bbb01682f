"""What can go wrong, and the one shape in which a client hears of it.

ApiError
├── BadRequest 400
├── ModelNotAllowed 403
├── EndpointNotFound, ModelNotFound 404
├── MethodNotAllowed 405
├── BodyTooLarge 413
├── UnsupportedMediaType 415
├── InternalError 500
│   └── OllamaError 500
├── OllamaBusy 503
└── RequestTimeout 504
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from core.responses import JSONResponse
from core.schemas import Error


class ApiError(Exception):
    """A failure that the client is told of: `str(error)` is the text it reads."""

    status: ClassVar[int]
    headers: Mapping[str, str] = {}

    def response(self) -> JSONResponse:
        """Return the failure as an answer of its own."""
        return JSONResponse(Error(error=str(self)), self.status, self.headers)


class BadRequest(ApiError):
    """The request is malformed, or Ollama says that it is."""

    status = 400


class ModelNotAllowed(ApiError):
    """This client, or any, may not use the model."""

    status = 403


class EndpointNotFound(ApiError):
    """No endpoint has this path."""

    status = 404


class ModelNotFound(ApiError):
    """The model is not installed on the Ollama machine."""

    status = 404

    def __init__(self, model: str, installed: Sequence[str] | None) -> None:
        """Name the `installed` models; None is not known."""
        if installed is None:
            hint = "GET /api/models lists the installed ones"
        elif installed:
            hint = f"Installed models: {', '.join(installed)}"
        else:
            hint = "No model is installed yet"
        super().__init__(
            f"Model '{model}' is not installed. {hint}. To install it: ollama pull {model}"
        )


class MethodNotAllowed(ApiError):
    """The endpoint has another method."""

    status = 405

    def __init__(self, method: str, allow: str) -> None:
        super().__init__(f"Method {method} is not allowed here. Use {allow}")
        self.headers = {"allow": allow}


class BodyTooLarge(ApiError):
    """The request's body is over MAX_BODY_BYTES."""

    status = 413


class UnsupportedMediaType(ApiError):
    """A POST is not `application/json`; this keeps foreign web pages out."""

    status = 415


class InternalError(ApiError):
    """A mistake in this server; its log has the details."""

    status = 500


class OllamaError(InternalError):
    """Ollama cannot be reached, failed, or answered what cannot be understood."""

    def __init__(self, text: str) -> None:
        super().__init__(f"Ollama connection error: {text}")


class OllamaBusy(ApiError):
    """Ollama's own queue is full."""

    status = 503

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"Ollama is busy: its queue is full. Try again in {retry_after_s} seconds")
        self.headers = {"retry-after": str(retry_after_s)}


class RequestTimeout(ApiError):
    """No complete answer came in time."""

    status = 504

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"Request timeout: no complete answer within {seconds:g} seconds. "
            "Try a shorter message, a smaller model or a lower num_predict"
        )
