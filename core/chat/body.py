"""Reads bodies: as UTF-8, and within a budget of memory for all of them."""

import asyncio
import codecs
import re
from functools import cached_property
from typing import Self

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from core.chat.parts import MAX_PARTS, PartsCounter
from core.context import Record, fields_of
from core.contract.errors import BadRequest, BodyTooLarge
from core.contract.retryable import MemoryFull
from core.settings.environment import SettingsError
from core.settings.schema import Settings

SMALL_BODY_BYTES = 64 * 1024
"""Enough for an ordinary message."""
QUICK_BODY_BYTES = 4 * 1024
"""What is checked too quickly for other clients to notice."""
RESERVED_SHARE = 16
"""One part in so many of the memory is reserved for small bodies, whatever large ones take."""

_BOM = codecs.BOM_UTF8
_COMPRESSIONS = {b"br", b"compress", b"deflate", b"gzip", b"x-gzip", b"zstd"}
"""Scripts also send `Content-Encoding: utf-8`, which does no harm."""
_HALF_A_PAIR = re.compile(rb"\\u(?<!\\\\u)[dD][89abAB]..(?!\\u[dD][c-fC-F])")
"""After another backslash it is text: the name of a folder, or a pattern."""
_DIGITS = 20  # of a length: Python refuses to read thousands


class MemoryBudget:
    """Counts the bytes of all bodies in memory, and refuses bodies beyond the limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.turn = asyncio.Lock()
        """Held while a body of more than QUICK_BODY_BYTES is checked.

        A check pauses to let other clients run. With many checks at once, each pause would last as
        long as all the others' steps.
        """

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the budget of MAX_MEMORY_BYTES.

        Raises:
            SettingsError: it has no room for one body of MAX_BODY_BYTES, which would always get
                a 503.
        """
        size = settings.max_body_bytes
        least = size
        if size > SMALL_BODY_BYTES:
            least = -(-size * RESERVED_SHARE // (RESERVED_SHARE - 1))
        if settings.max_memory_bytes < least:
            raise SettingsError(
                f"MAX_MEMORY_BYTES is invalid: expected at least {least}, or one request of "
                f"MAX_BODY_BYTES ({size}) could never be read"
            )
        return cls(settings.max_memory_bytes)

    def check(self, size: int) -> None:
        """Check that there is room for a body that declares `size` bytes.

        Raises:
            MemoryFull: there is none now.
        """
        limit = self.limit
        if size > SMALL_BODY_BYTES:
            limit -= limit // RESERVED_SHARE
        if self.used + size > limit:
            raise MemoryFull

    def hold(self, record: Record, size: int) -> None:
        """Count `size` more bytes for the request of `record`, until `release`.

        Raises:
            MemoryFull: there is no room for them.
        """
        self.used -= record.body_bytes
        try:
            self.check(record.body_bytes + size)
            record.body_bytes += size
        finally:
            self.used += record.body_bytes

    def release(self, record: Record) -> None:
        """Stop counting the body of a request that has ended."""
        self.used -= record.body_bytes
        record.body_bytes = 0


async def read_body(
    request: Request,
    charset: str,
    settings: Settings,
    budget: MemoryBudget,
    max_parts: int = MAX_PARTS,
) -> bytes | bytearray:
    """Return the body as UTF-8 without a byte order mark; `charset` names a Python codec.

    It may have `max_parts`. It is never held as a Python string, in which one emoji makes every
    character take four bytes.

    Raises:
        ClientDisconnect: the client left before its body was complete.
        BodyTooLarge: the body is over MAX_BODY_BYTES.
        MemoryFull: the bodies of other requests leave it no room.
        BadRequest: it is compressed, is not valid text in its charset, or has too many parts.
    """
    limit = settings.max_body_bytes
    fields = fields_of(request.scope)
    if fields.get(b"content-encoding", b"").strip().lower() in _COMPRESSIONS:
        raise BadRequest("The body is compressed. Send it without a Content-Encoding")
    declared = fields.get(b"content-length", b"0")
    size = int(declared[:_DIGITS]) if declared.isdigit() else 0
    if size > limit:
        raise _too_large(limit)
    if size > SMALL_BODY_BYTES:
        budget.check(size)
    record = Record.of(request.scope)
    chunk, more = _piece(await request.receive())
    if not more and len(chunk) <= min(limit, SMALL_BODY_BYTES):  # the usual case
        if charset != "utf-8" or not chunk.isascii():
            chunk = _Text(charset).feed(chunk, final=True)
        budget.hold(record, len(chunk))
        return chunk.removeprefix(_BOM)
    text = _Text(charset)
    parts = PartsCounter(max_parts)
    body: bytes | bytearray = b""
    received = 0
    while True:
        received += len(chunk)
        if received > limit:
            raise _too_large(limit)
        chunk = text.feed(chunk, final=not more)
        budget.hold(record, len(chunk))
        parts.feed(chunk)
        if body or more:
            body = body or bytearray()
            body += chunk
        else:
            body = chunk
        if not more:
            break
        chunk, more = _piece(await request.receive())
    return body.removeprefix(_BOM) if body.startswith(_BOM) else body  # it would copy


def _piece(message: Message) -> tuple[bytes, bool]:
    """Return the piece of a body in `message`, and whether there are more."""
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


class _UTF16Decoder(codecs.IncrementalDecoder):
    """Python's decoder, but without a byte order mark it assumes Windows' byte order."""

    def __init__(self) -> None:
        super().__init__()
        self._start = b""
        self._decoder: codecs.IncrementalDecoder | None = None

    def decode(self, piece: bytes, final: bool = False) -> str:  # type: ignore[override]
        if self._decoder is None:
            self._start += piece
            if len(self._start) < len(codecs.BOM_UTF16) and not final:
                return ""
            has_bom = self._start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            self._decoder = codecs.getincrementaldecoder("utf-16" if has_bom else "utf-16-le")()
            piece = self._start
        return self._decoder.decode(piece, final)

    def getstate(self) -> tuple[bytes, int]:
        return self._decoder.getstate() if self._decoder else (self._start, 0)


class _Text:
    """Checks pieces of text in a charset, and converts them to UTF-8."""

    def __init__(self, charset: str) -> None:
        self._is_utf8 = charset == "utf-8"
        self._charset = charset
        self._is_between_characters = True

    @cached_property
    def _decoder(self) -> codecs.IncrementalDecoder:
        charset = self._charset
        return (_UTF16Decoder if charset == "utf-16" else codecs.getincrementaldecoder(charset))()

    def feed(self, piece: bytes, *, final: bool) -> bytes:
        if self._is_utf8 and self._is_between_characters and piece.isascii():
            return piece
        try:
            text = self._decoder.decode(piece, final)
        except UnicodeDecodeError:
            raise BadRequest(
                "The body is not valid text in its charset. Send it as UTF-8, with "
                "Content-Type: application/json; charset=utf-8"
            ) from None
        self._is_between_characters = not self._decoder.getstate()[0]
        return piece if self._is_utf8 else text.encode()


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is over {limit} bytes. Send a shorter message or smaller images")


def json_problem(error: Exception, body: bytes | bytearray) -> str:
    """Return why `body` is not JSON in UTF-8, given its decoder's `error`."""
    if half := _HALF_A_PAIR.search(body):  # msgspec takes it for the end of the data
        return f"{half[0].decode('latin-1')} is half of a character, such as an emoji cut in two"
    return str(error)
