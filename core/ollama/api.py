"""Ollama's HTTP API: each call sends JSON, and every failure is an ApiError."""

import asyncio
import errno
import logging
import ssl
from collections.abc import Sequence
from functools import lru_cache
from typing import NoReturn, TypeVar

import httpx
import msgspec

from core.contract.errors import OllamaError, RequestTimeout
from core.ollama.connection import Header, UpstreamError
from core.ollama.failures import failed_response, not_ollama
from core.ollama.pool import Body, Pool
from core.ollama.transport import ForeignProtocol, as_httpx

METADATA_TIMEOUT_S = 10
"""For requests that Ollama answers from memory, within milliseconds."""

_T = TypeVar("_T")
_JSON = b"content-type: application/json\r\n"
_encode = msgspec.json.Encoder().encode
_logger = logging.getLogger(__name__)


class OllamaAPI:
    """Sends requests to one Ollama server, any number at once."""

    def __init__(
        self, base_url: str, pool: Pool, headers: Sequence[Header], *, built_in: bool
    ) -> None:
        """Call `base_url` through `pool`, with `headers` on every request.

        `built_in`: it is the built-in model, which this server restarts itself.
        """
        self._base_url = base_url.rstrip("/")
        self._pool = pool
        self._headers = headers
        self._built_in = built_in
        self._head = lru_cache(self._head_of)

    async def send(
        self, path: str, body: object = None, request_id: str = ""
    ) -> tuple[int, list[Header], Body]:
        """POST `body` to `path`, or GET that if `body` is None; return status, headers and body.

        The answer's body must be closed. The request goes to the pool directly: httpx would take a
        sixth of a plain chat's time.

        Raises:
            OllamaError: no response arrived.
        """
        try:
            # Nothing here may refer to the request: its megabytes would stay until the answer.
            return await self._pool.send(self._request(path, body, request_id))
        except UpstreamError as error:
            raise_explained(error, built_in=self._built_in)

    def _request(self, path: str, body: object, request_id: str) -> bytes:
        if body is None:
            return self._head("GET", path) + b"\r\n"
        content = _encode(body)
        id_ = b"x-request-id: %b\r\n" % request_id.encode() if request_id else b""
        length = b"content-length: %d\r\n\r\n" % len(content)
        head = self._head("POST", path)
        return b"".join((head, _JSON, id_, length, content))  # `%b` would allocate more

    def _head_of(self, method: str, path: str) -> bytes:
        """Return the start of a request's head, which is the same each time."""
        target = httpx.URL(self._base_url + path).raw_path
        lines = b"".join(b"%b: %b\r\n" % header for header in self._headers)
        return b"%b %b HTTP/1.1\r\n%b" % (method.encode(), target, lines)

    async def ask(self, path: str, body: object = None) -> tuple[httpx.Response, bytes]:
        """Send a request that Ollama can answer immediately; return the answer and its content.

        Raises:
            OllamaError: no complete response arrived.
            RequestTimeout: none arrived within METADATA_TIMEOUT_S.
        """
        try:
            async with asyncio.timeout(METADATA_TIMEOUT_S):
                status, headers, answer = await self.send(path, body)
                return httpx.Response(status, headers=headers), await read_body(answer)
        except TimeoutError:
            raise RequestTimeout(
                METADATA_TIMEOUT_S,
                "Ollama is not responding. Is its machine overloaded?",
            ) from None


def parse(response: httpx.Response, content: bytes, type_: type[_T]) -> _T:
    """Return the content of `response` as a `type_`.

    Raises:
        ApiError: it reports a failure, or is not a `type_`.
    """
    if response.status_code != httpx.codes.OK:
        raise failed_response(response, content)
    try:
        return msgspec.json.decode(content, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise not_ollama() from None


async def read_body(body: Body) -> bytes:
    """Read all of `body`, and close it.

    Raises:
        OllamaError: the connection broke.
    """
    try:
        parts = [await body.read()]
        while not body.ended:
            parts.append(await body.read())
    except UpstreamError as error:
        raise_explained(error)
    finally:
        body.close()
    return parts[0] if len(parts) == 1 else b"".join(parts)


def raise_explained(failure: UpstreamError, *, built_in: bool = False) -> NoReturn:
    """Log a failure of the network, and raise what explains it to the client.

    Raises:
        OllamaError: always; its cause is httpx's counterpart of `failure`.
    """
    error = as_httpx(failure)
    _logger.warning("%s: %s", type(error).__name__, error)
    raise OllamaError(_explanation(error, built_in=built_in)) from error


def _explanation(error: httpx.TransportError, *, built_in: bool) -> str:
    cause = error.__cause__
    number = cause.errno if isinstance(cause, OSError) else None
    if number in {errno.EMFILE, errno.ENFILE}:
        return (
            "this server has no file descriptor left to reach Ollama with. Try again soon; its "
            "operator can raise the limit (ulimit -n)"
        )
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return _not_connected(error, built_in=built_in)
    if isinstance(error, ForeignProtocol):
        return "the server at OLLAMA_BASE_URL does not speak HTTP. Check its scheme and port"
    if number in {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}:
        return "Ollama's machine stopped responding. Check that it and its network are up"
    return "the connection to Ollama broke before the answer was complete. Send the message again"


def _not_connected(error: httpx.TransportError, *, built_in: bool) -> str:
    if built_in:
        return (
            "the built-in model has stopped, and is being restarted. Try again in a few seconds; "
            "the server's log says why it stopped"
        )
    if isinstance(error, httpx.ConnectTimeout):
        return "Ollama did not accept a connection in time. Is its machine up?"
    if isinstance(error.__cause__, ssl.SSLCertVerificationError):
        return (
            f"the certificate at its address is not valid ({error.__cause__.verify_message}). "
            "Renew it there, or check OLLAMA_CA_FILE here"
        )
    return "cannot connect to Ollama. Is it running? Check OLLAMA_BASE_URL"
