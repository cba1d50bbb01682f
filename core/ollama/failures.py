"""What Ollama, or a relay on the way to it, says when it fails, in this API's terms."""

import re
from typing import Any

import httpx
import msgspec

from core.contract.errors import ApiError, BadRequest, OllamaBusy, OllamaError

BUSY_RETRY_AFTER_S = 5
_MAX_TEXT = 500

# Answered with 500, yet the client's fault (recordings err_option_type_*, err_format_bad*, and
# llm/server.go).
_CLIENT_FAULTS = re.compile(
    r'option "\w+" must be of type|invalid format:|invalid JSON schema in format|detokenize error'
)
_MISSING = re.compile(rb'\{"error":"model .* not found(, try pulling it first)?"\}')
_INTERNAL = re.compile(
    r"""\b(?i:[a-z][a-z0-9+.-]{0,9})://[^\s"']+  # a URL
      | (?<![\w.-])[A-Za-z][\w-]{0,62}(\.[\w-]{1,63}){0,9}:\d{3,5}\b  # a host and its port
      | \b\d{1,3}(\.\d{1,3}){3}(:\d+)?  # an IPv4 address
      | \[[\w.%]{0,9}:[\w.%:]{0,45}\](:\d+)?  # an IPv6 address, in brackets
      | (?<![\w:])(?=[0-9a-fA-F:]*::|([0-9a-fA-F]+:){7})[0-9a-fA-F:.]{3,}(?![\w:])  # or without
      | (?<=\blookup\ )\S+ | (?<=\bdial\ tcp\ )[^\s:]\S*  # a host, as Go's errors name it
      | (?<![\w./])(~[/\\]|[A-Za-z]:\\|\\\\|/)  # a file's path; folders may have blanks
        ([\w.@$~()+,-]+(\ [\w.@$~()+,-]+)*[/\\])+[\w.@:~()+,-]+
    """,
    re.VERBOSE,
)


def failure(text: str, status: int = 500) -> ApiError:
    """Return the error that Ollama's `text`, answered with HTTP `status`, means for the client."""
    text = _without_internals(_unwrapped(text))
    if status == httpx.codes.BAD_REQUEST or _CLIENT_FAULTS.match(text):
        return BadRequest(f"Ollama does not accept this request: {text}")
    return OllamaError(text)


def failed_response(response: httpx.Response, body: bytes) -> ApiError:
    """Return the error for an answer of Ollama that is not a 200."""
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return OllamaBusy(_retry_after_s(response))
    try:
        text = msgspec.json.decode(body, type=dict[str, Any])["error"]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError):
        return OllamaError(_unexplained(response.status_code))
    return failure(
        text if isinstance(text, str) else msgspec.json.encode(text).decode(), response.status_code
    )


def not_ollama() -> OllamaError:
    """Return the error for an answer that Ollama would not give."""
    return OllamaError("the answer is not Ollama's. Check OLLAMA_BASE_URL")


def says_model_is_missing(response: httpx.Response, body: bytes) -> bool:
    """Tell Ollama's own 404 from that of whatever else may answer at its address."""
    return response.status_code == httpx.codes.NOT_FOUND and bool(_MISSING.match(body))


def _unexplained(status: int) -> str:
    if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        return (
            f"it refuses this server (HTTP {status}). Check OLLAMA_HEADERS here, OLLAMA_HOST there"
        )
    if status == httpx.codes.NOT_FOUND or httpx.codes.is_redirect(status):
        return f"no Ollama answers there (HTTP {status}). Check OLLAMA_BASE_URL"
    return f"it failed without saying why (HTTP {status}). Look into its log"


def _unwrapped(text: str) -> str:
    """Return the message inside `text` where it is JSON once more, as llama.cpp's errors are."""
    try:
        inner = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return text
    inner = inner.get("error", inner)
    message = inner.get("message") if isinstance(inner, dict) else inner
    return message if isinstance(message, str) else text


def _without_internals(text: str) -> str:
    return _INTERNAL.sub("[internal]", text[: 8 * _MAX_TEXT])[:_MAX_TEXT]


def _retry_after_s(response: httpx.Response) -> int:
    value = response.headers.get("retry-after", "")
    return int(value) if re.fullmatch(r"\d{1,4}", value) else BUSY_RETRY_AFTER_S
