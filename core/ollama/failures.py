"""Translates failures of Ollama, or of a relay in front of it, into this API's errors."""

import re
from typing import Any

import httpx
import msgspec

from core.contract.errors import ApiError, BadRequest, OllamaError
from core.contract.retryable import OllamaBusy

BUSY_RETRY_AFTER_S = 5
_MAX_TEXT = 500

# Reported with 500, but the client's fault (recordings err_option_type_*, err_format_bad*, and
# llm/server.go).
_CLIENT_FAULTS = re.compile(
    r'option "\w+" must be of type|invalid format:|invalid JSON schema in format|detokenize error'
)
# From Ollama's own engine; from llama.cpp's server, which newer versions run; from its cloud.
_WINDOW_FULL = re.compile(
    "exceeds the context length|exceeds the available context size|exceeded max context length"
)
_MISSING = re.compile(r"model .* not found(, try pulling it first)?")
# A line of llama.cpp's log, which may be about anyone's request: "slot update_slots: id 0 |
# task 127 | ...", "srv operator(): ...", "task id = 127, n_tokens = 2048".
_LOG = re.compile(
    r"\b(?:slot|srv|que|res|cmn)\s+\w[\w()]*\s*:|\b(?:task|id_task|task_id|task id)\s*[=|:]?\s*\d"
    r"|\bid\s+\d+\s*\|"
)
_SENTENCE_END = re.compile(r"[.!?](?=\s)|\n")
_INTERNAL = re.compile(
    r"""\b(?i:[a-z][a-z0-9+.-]{0,9})://[^\s"']+  # a URL
      | (?<![\w.-])[A-Za-z][\w-]{0,62}(\.[\w-]{1,63}){0,9}:\d{3,5}\b  # a host and its port
      | \b\d{1,3}(\.\d{1,3}){3}(:\d+)?  # an IPv4 address
      | \[[\w.%]{0,9}:[\w.%:]{0,45}\](:\d+)?  # an IPv6 address, in brackets
      | (?<![\w:])(?=[0-9a-fA-F:]*::|([0-9a-fA-F]+:){7})[0-9a-fA-F:.]{3,}(?![\w:])  # the same, bare
      | (?<=\blookup\ )\S+ | (?<=\bdial\ tcp\ )[^\s:]\S*  # a host in one of Go's errors
      | (?<![\w./])(~[/\\]|[A-Za-z]:\\|\\\\|/)  # a file's path; folders may contain spaces
        ([\w.@$~()+,-]+(\ [\w.@$~()+,-]+)*[/\\])+[\w.@:~()+,-]+
    """,
    re.VERBOSE,
)


def failure(text: str, status: int = 500) -> ApiError:
    """Return the client's error for Ollama's error `text` and HTTP `status`."""
    text = _without_internals(_without_logs(_unwrapped(text)))
    if _WINDOW_FULL.search(text):
        return BadRequest(
            f"Ollama rejected this request: {text}. The conversation is longer than the model can "
            "read: start a new conversation, or send a shorter message"
        )
    if status == httpx.codes.BAD_REQUEST or _CLIENT_FAULTS.match(text):
        return BadRequest(f"Ollama rejected this request: {text}")
    return OllamaError(text)


def failed_response(response: httpx.Response, body: bytes) -> ApiError:
    """Return the error for a response from Ollama that is not a 200."""
    text = _error_in(body)
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        if isinstance(text, str) and re.search(r"\b(down|reached)$", text):
            return OllamaBusy(
                _retry_after_s(response), f"not available: {_without_internals(text)}"
            )
        return OllamaBusy(_retry_after_s(response))
    if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
        return OllamaBusy(
            _retry_after_s(response), "busy: it, or a relay in front, limits requests"
        )
    if text is None:
        return OllamaError(_unexplained(response.status_code))
    return failure(
        text if isinstance(text, str) else msgspec.json.encode(text).decode(), response.status_code
    )


def not_ollama() -> OllamaError:
    """Return the error for an answer that cannot be Ollama's."""
    return OllamaError("the answer is not Ollama's. Check OLLAMA_BASE_URL")


def incomplete() -> OllamaError:
    """Return the error for an answer that ends before its end."""
    return OllamaError("the answer ended before it was complete. Send the message again")


def says_model_is_missing(response: httpx.Response, body: bytes) -> bool:
    """Return whether this is Ollama's own 404, not that of another server at its address."""
    if response.status_code != httpx.codes.NOT_FOUND:
        return False
    text = _error_in(body)
    return isinstance(text, str) and bool(_MISSING.fullmatch(text))


def _error_in(body: bytes) -> Any:
    """Return the `error` of an answer; None if it has none, or is no JSON object."""
    try:
        return msgspec.json.decode(body, type=dict[str, Any]).get("error")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _unexplained(status: int) -> str:
    if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        return (
            f"it denied this server access (HTTP {status}). "
            "Check OLLAMA_HEADERS here, and OLLAMA_HOST on the Ollama machine"
        )
    if status == httpx.codes.NOT_FOUND or httpx.codes.is_redirect(status):
        return f"no Ollama found at this address (HTTP {status}). Check OLLAMA_BASE_URL"
    return f"it failed without saying why (HTTP {status}). Check its log"


def _unwrapped(text: str) -> str:
    """Return the message inside `text` if it is JSON itself, as llama.cpp's errors are."""
    try:
        inner = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return text
    inner = inner.get("error", inner)
    message = inner.get("message") if isinstance(inner, dict) else inner
    return message if isinstance(message, str) else text


def _without_logs(text: str) -> str:
    """Return `text`; if it quotes lines of a log, only its first sentence, without them."""
    log = _LOG.search(text[: 8 * _MAX_TEXT])
    if not log:
        return text
    end = _SENTENCE_END.search(text)
    first = text[: min(end.start() if end else len(text), log.start())]
    return first.rstrip(" ,;:|-([{\t\n") or "it failed. Its log says why"


def _without_internals(text: str) -> str:
    return _INTERNAL.sub("[internal]", text[: 8 * _MAX_TEXT])[:_MAX_TEXT]


def _retry_after_s(response: httpx.Response) -> int:
    value = response.headers.get("retry-after", "")
    return int(value) if re.fullmatch(r"\d{1,4}", value) else BUSY_RETRY_AFTER_S
