"""The errors of the API, and the one shape in which clients get them.

ApiError
├── BadRequest 400
│   └── HostNotAllowed, InvalidHTTP 400
├── Unauthorized 401
│   ├── CredentialsNeeded 401
│   └── InvalidCredentials 401
├── AddressNotAllowed, ModelNotAllowed 403
├── EndpointNotFound, ModelNotFound 404
├── MethodNotAllowed 405
├── BodyTimeout, HeadTimeout 408
├── BodyTooLarge 413
├── UnsupportedMediaType 415
├── HeadTooLarge 431
├── InternalError 500
│   └── OllamaError 500
├── CodingNotSupported 501
├── RequestTimeout 504
└── TryAgainLater 429, 503: see `retryable`
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from core.contract.responses import JSONResponse
from core.contract.schemas import Error

_HOW_TO_GET_A_KEY = (
    "This server's operator creates keys with python -m core.keys create --name NAME"
)


class ApiError(Exception):
    """A failure reported to the client; `str(error)` is the text it gets."""

    status: ClassVar[int]
    headers: Mapping[str, str] = {}

    def response(self) -> JSONResponse:
        """Return the failure as a response."""
        return JSONResponse(Error(error=str(self)), self.status, self.headers)


class BadRequest(ApiError):
    """The request is malformed, according to this server or Ollama."""

    status = 400


class HostNotAllowed(BadRequest):
    """The request names a host other than this server: perhaps DNS rebinding."""


class InvalidHTTP(BadRequest):
    """The bytes are not an HTTP request."""


class CodingNotSupported(ApiError):
    """The request's body has a transfer coding other than `chunked`."""

    status = 501


class Unauthorized(ApiError):
    """The request is not authenticated."""

    status = 401
    headers: Mapping[str, str] = {"www-authenticate": "Bearer"}


class CredentialsNeeded(Unauthorized):
    """The request has no credentials, so by RFC 6750 its answer has no error code."""

    def __init__(self, address: str | None) -> None:
        """Name the client's `address`; None if unknown."""
        unnamed = (
            "clients behind a proxy that TRUSTED_PROXIES lacks, or that does not name them, are"
        )
        who = f"{address} is" if address else unnamed
        super().__init__(
            "Credentials are needed: send an API key or token as Authorization: Bearer ..., or a "
            f"key as X-API-Key. {_HOW_TO_GET_A_KEY}. Only ANONYMOUS_CLIENTS may call without one, "
            f"and {who} not among them"
        )


class InvalidCredentials(Unauthorized):
    """The key or token of the request is not valid."""

    def __init__(self, reason: str, *, key: str = "") -> None:
        """State the `reason`, which must be ASCII and contain nothing that the client sent.

        `key` is the name of the key, for the log.
        """
        self.key = key
        super().__init__(
            f"Invalid credentials: {reason}. Send a valid API key or token as "
            f"Authorization: Bearer ..., or a key as X-API-Key. {_HOW_TO_GET_A_KEY}"
        )
        self.headers = {
            "www-authenticate": f'Bearer error="invalid_token", error_description="{reason}"'
        }


class AddressNotAllowed(ApiError):
    """The client's address is not one of ALLOWED_CLIENTS."""

    status = 403


class ModelNotAllowed(ApiError):
    """The model is off limits to this client, or to all clients."""

    status = 403


class EndpointNotFound(ApiError):
    """No endpoint has this path."""

    status = 404


class ModelNotFound(ApiError):
    """The model is not installed on the Ollama machine."""

    status = 404

    def __init__(self, model: str, installed: Sequence[str] | None) -> None:
        """Name the `installed` models; None if unknown."""
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
    """The endpoint does not support the method."""

    status = 405

    def __init__(self, method: str, allow: str) -> None:
        super().__init__(f"Method {method} is not allowed here. Use {allow}")
        self.headers = {"allow": allow}


class HeadTimeout(ApiError):
    """The head of a request arrived too slowly."""

    status = 408


class BodyTimeout(ApiError):
    """The body of a request has stopped arriving, or arrives too slowly."""

    status = 408
    headers: Mapping[str, str] = {"connection": "close"}

    def __init__(self, size: int, seconds: float) -> None:
        """State that less than `size` bytes of it came within `seconds`."""
        super().__init__(
            f"The body has stopped arriving: less than {size} bytes came within {seconds:g} "
            "seconds. Send the request again"
        )


class HeadTooLarge(ApiError):
    """The head of a request is larger than any legitimate client's."""

    status = 431


class BodyTooLarge(ApiError):
    """The request's body is over MAX_BODY_BYTES."""

    status = 413


class UnsupportedMediaType(ApiError):
    """A POST is not `application/json`; refusing it keeps foreign web pages out."""

    status = 415


class InternalError(ApiError):
    """A bug in this server; its log has the details."""

    status = 500


class OllamaError(InternalError):
    """Ollama cannot be reached, failed, or sent an unintelligible answer."""

    def __init__(self, text: str) -> None:
        super().__init__(f"Ollama connection error: {text}")


class RequestTimeout(ApiError):
    """No complete answer arrived in time."""

    status = 504

    def __init__(
        self,
        seconds: float,
        advice: str = "Try a shorter message, a smaller model, a lower num_predict or max_tokens",
    ) -> None:
        """State the time limit in `seconds`, and what to do about it."""
        super().__init__(
            f"Request timeout: no complete answer within {seconds:g} seconds. {advice}"
        )
        self.headers = {"connection": "close"}  # its body may still be arriving, endlessly
