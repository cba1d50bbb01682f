"""uvicorn's cycle of a request and its answer, with one write for a whole answer."""

import re
import urllib.parse

import httptools
from uvicorn._types import ASGISendEvent, HTTPScope
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from core.serving.flow import Signal

_CONTROLS = bytes({*range(0x20), 0x7F} - {ord("\t")})
_NO_BODY = {204, 304}
_ORDINARY = re.compile(rb"(?:/[\w.-]+)+/?|/")
"""A target that is just a path, without escapes."""
_SHORT_TARGET = 1024


class Cycle(RequestResponseCycle):
    """Sends the head of an answer together with the start of its body.

    Until then the answer has not started: a refusal may still take its place.
    """

    _head: bytes | None = None

    def __init__(self, protocol: HttpToolsProtocol, *, keep_alive: bool) -> None:
        """Begin the exchange of the request that `protocol` has parsed the head of."""
        super().__init__(
            scope=protocol.scope,
            transport=protocol.transport,
            flow=protocol.flow,
            logger=protocol.logger,
            access_logger=protocol.access_logger,
            access_log=False,
            default_headers=[],
            message_event=Signal(),  # type: ignore[arg-type]
            expect_100_continue=protocol.expect_100_continue,
            keep_alive=keep_alive,
            on_response=protocol.on_response_complete,
        )

    def probe(self) -> bytes:
        """Return bytes that mean nothing at this point of the answer, if there are any."""
        if not self.response_started:
            return b"HTTP/1.1 100 Continue\r\n\r\n"
        is_chunked = self.chunked_encoding and self.scope["method"] != "HEAD"
        return b"0" if is_chunked else b""  # a leading zero of the next chunk's size

    async def send(self, message: ASGISendEvent) -> None:
        """Send a part of the answer, once the client has read enough of what came before.

        Raises:
            RuntimeError: a header is invalid, or the parts do not make an answer.
        """
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start" and not self.response_started:
            self.waiting_for_100_continue = False
            self._head = self._head_of(message["status"], [*message.get("headers", ())])
        elif message["type"] == "http.response.body" and not self.response_complete:
            self._send_body(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"Unexpected ASGI message '{message['type']}'")

    def _send_body(self, body: bytes, *, more: bool) -> None:
        data = body
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
            data = b""
        elif self.chunked_encoding:
            data = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            data += b"" if more else b"0\r\n\r\n"
        else:
            self.expected_content_length -= len(body)
        if self.expected_content_length < 0 or (self.expected_content_length and not more):
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
        fields = dict(headers)
        if HEADER_RE.search(b"".join(fields)):
            raise RuntimeError("Invalid HTTP header name.")
        length = fields.get(b"content-length")
        self.expected_content_length = int(length or 0)
        has_body = self.scope["method"] != "HEAD" and status not in _NO_BODY
        self.chunked_encoding = length is None and has_body
        if self.chunked_encoding:
            headers.append((b"transfer-encoding", b"chunked"))
        if b"close" in fields.get(b"connection", b"").lower():
            self.keep_alive = False
        elif not self.keep_alive:
            headers.append((b"connection", b"close"))
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        if len(lines) - len(lines.translate(None, _CONTROLS)) != len(b"\r\n") * len(headers):
            raise RuntimeError("Invalid HTTP header value.")
        return b"%b%b\r\n" % (STATUS_LINE[status], lines)


def add_request_line(scope: HTTPScope, method: bytes, target: bytes) -> None:
    """Add to `scope` what a request's first line says.

    Raises:
        httptools.HttpParserInvalidURLError: the target is malformed.
    """
    raw_path, query = target, b""
    if len(target) > _SHORT_TARGET or not _ORDINARY.fullmatch(target):
        url = httptools.parse_url(target)
        raw_path, query = url.path, url.query or b""
    path = raw_path.decode("ascii")
    if "%" in path:
        # Decoded, %2f would be a separator, and another endpoint's path.
        path = path.lower() if "%2f" in path.lower() else urllib.parse.unquote(path)
    scope["method"] = method.decode("ascii")
    scope["path"] = path
    scope["raw_path"] = raw_path
    scope["query_string"] = query
