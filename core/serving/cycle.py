"""A request and its answer on their connection, with one write for a whole answer."""

import logging
from collections.abc import Awaitable, Iterable
from functools import lru_cache

from starlette.types import ASGIApp, Message, Scope
from uvicorn.protocols.http.httptools_impl import HEADER_RE, STATUS_LINE, HttpToolsProtocol

from core.awaitables import DONE
from core.contract.dialects import dialect_of
from core.contract.errors import InternalError
from core.gate.browsers import RAW_HEADERS, SecurityHeadersMiddleware
from core.serving.flow import Signal

_CONTROLS = bytes({*range(0x20), 0x7F} - {ord("\t")})
_NO_BODY = {204, 304}
_logger = logging.getLogger(__name__)


class Cycle:
    """What uvicorn's `RequestResponseCycle` is to its protocol, in a third of the memory.

    It sends the head of an answer together with the start of its body. Until then the answer has
    not started: a refusal may still take its place.
    """

    __slots__ = (
        *("_awaits_continue", "_body", "_head", "_is_chunked", "_left", "disconnected", "flow"),
        *("keep_alive", "message_event", "more_body", "on_response", "response_complete"),
        *("response_started", "scope", "transport"),
    )

    def __init__(self, protocol: HttpToolsProtocol, scope: Scope, *, keep_alive: bool) -> None:
        """Begin the exchange of the request in `scope`."""
        self.scope = scope
        self.transport = protocol.transport
        self.flow = protocol.flow
        self.message_event = Signal()
        self.on_response = protocol.on_response_complete
        self.disconnected = False
        self.keep_alive = keep_alive
        is_1_0 = scope["http_version"] == "1.0"  # it would take a 100 for its answer
        self._awaits_continue = protocol.expect_100_continue and not is_1_0
        self._body: bytes | bytearray = b""
        self.more_body = True
        self.response_started = self.response_complete = self._is_chunked = False
        self._head: bytes | None = None
        self._left: int | None = 0  # bytes that are still to come; None: until the end

    async def run(self, app: ASGIApp) -> None:
        """Let `app` answer the request."""
        try:
            await app(self.scope, self.receive, self.send)
            if not self.response_complete and not self.disconnected:
                raise RuntimeError("The application returned without completing its answer")
        except BaseException as error:
            _logger.error("An application failed", exc_info=error)
            if self.response_started:
                self.transport.close()
            else:
                self.keep_alive = False
                internal = InternalError("Internal error. Check the server's log")
                answer = dialect_of(self.scope["path"]).response(internal, "")
                await SecurityHeadersMiddleware(answer)(self.scope, self.receive, self.send)
        finally:
            self.on_response = _do_nothing  # leave no cycle

    def feed(self, body: bytes) -> int:
        """Add a piece of the request's body; return how many bytes of it wait to be received."""
        if self._body:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += body
        else:
            self._body = body
        self.message_event.set()
        return len(self._body)

    async def receive(self) -> Message:
        """Return the next part of the request's body, or that there is nothing left to answer."""
        if self._awaits_continue:
            self._awaits_continue = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self.disconnected and not self.response_complete:
            self.flow.resume_reading()
            await self.message_event.wait()
            self.message_event.clear()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body, self._body = self._body, b""
        return {"type": "http.request", "body": bytes(body), "more_body": self.more_body}

    def probe(self) -> bytes:
        """Return bytes that mean nothing at this point of the answer, if there are any."""
        if not self.response_started:
            return b"HTTP/1.1 100 Continue\r\n\r\n"
        is_chunked = self._is_chunked and self.scope["method"] != "HEAD"
        return b"0" if is_chunked else b""  # a leading zero of the next chunk's size

    def send(self, message: Message) -> Awaitable[None]:
        """Send a part of the answer, once the client has read enough of what came before.

        Raises:
            RuntimeError: a header is invalid, or the parts do not make an answer.
        """
        if self.flow.write_paused and not self.disconnected:
            return self._send_later(message)
        self._send(message)
        return DONE

    async def _send_later(self, message: Message) -> None:
        await self.flow.drain()
        self._send(message)

    def _send(self, message: Message) -> None:
        if self.disconnected:
            return
        if message["type"] == "http.response.body" and not self.response_complete:
            self._send_body(message.get("body", b""), more=message.get("more_body", False))
        elif message["type"] == "http.response.start" and not self.response_started:
            self._awaits_continue = False
            self._head = self._head_of(message["status"], [*message.get("headers", ())])
            if "body" in message:
                self._send_body(message["body"], more=False)
        else:
            raise RuntimeError(f"Unexpected ASGI message '{message['type']}'")

    def _send_body(self, body: bytes, *, more: bool) -> None:
        data = body
        if self.scope["method"] == "HEAD":
            self._left = 0
            data = b""
        elif self._is_chunked:
            data = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            data += b"" if more else b"0\r\n\r\n"
        elif self._left is not None:
            self._left -= len(body)
        if self._left and (self._left < 0 or not more):
            raise RuntimeError("The content is not as long as Content-Length says")
        if not self.response_started:
            if self._head is None:
                raise RuntimeError("An answer begins with 'http.response.start'")
            data = self._head + data
            self._head = None
            self.response_started = True
        self.transport.write(data)
        if not more:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()

    def _head_of(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        defaults = b""
        if headers[-len(RAW_HEADERS) :] == RAW_HEADERS:
            del headers[-len(RAW_HEADERS) :]
            defaults = _DEFAULTS
        fields = dict(headers)
        if _is_invalid(tuple(fields)):
            raise RuntimeError("Invalid HTTP header name.")
        length = fields.get(b"content-length")
        self._left = int(length or 0)
        has_body = self.scope["method"] != "HEAD" and status not in _NO_BODY
        self._is_chunked = length is None and has_body
        if self._is_chunked and self.scope["http_version"] == "1.0":
            self._is_chunked = False  # unknown there: the answer ends with its connection
            self._left = None
        if self._is_chunked:
            headers.append((b"transfer-encoding", b"chunked"))
        if b"connection" in fields and b"close" in fields[b"connection"].lower():
            self.keep_alive = False
        elif not self.keep_alive:
            headers.append((b"connection", b"close"))
        lines = header_lines(headers)
        if len(lines) - len(lines.translate(None, _CONTROLS)) != len(b"\r\n") * len(headers):
            raise RuntimeError("Invalid HTTP header value.")
        return b"".join((STATUS_LINE[status], lines, defaults, b"\r\n"))


@lru_cache(maxsize=64)
def _is_invalid(names: tuple[bytes, ...]) -> bool:
    return bool(HEADER_RE.search(b"".join(names)))


def header_lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return `headers` as they are sent."""
    return b"\r\n".join([*map(b": ".join, headers), b""])


def _do_nothing() -> None:
    pass


_DEFAULTS = header_lines(RAW_HEADERS)
