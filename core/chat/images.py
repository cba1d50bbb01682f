"""Checks that images are base64, without holding them decoded or as Python strings."""

import asyncio
from collections.abc import Iterator

import msgspec
from msgspec import UNSET

from core.contract.errors import BadRequest
from core.contract.schemas import MAX_IMAGES, ChatRequest

PIECE_BYTES = 2**20
"""How much is checked at a time, in about a millisecond, before other clients get their turn."""

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
# What JSON writers escape in base64: PHP and Java the slash, .NET the plus, Gson the equals sign.
_ESCAPES = (
    (b"\\/", b"/"),
    (b"\\u002B", b"+"),
    (b"\\u002b", b"+"),
    (b"\\u002F", b"/"),
    (b"\\u002f", b"/"),
    (b"\\u003D", b"="),
    (b"\\u003d", b"="),
)
_LONGEST_ESCAPE = 6
_KINDS = {b"[": "an array", b"{": "an object", b"n": "null", b"t": "a boolean", b"f": "a boolean"}
_QUANTUM = 4  # base64 letters for three bytes
_MAX_PADDING = 2


async def check_images(chat: ChatRequest) -> None:
    """Check the number and the encoding of all images in `chat`.

    Raises:
        BadRequest: they are too many, or one is not base64; the text names it.
    """
    images = list(_images(chat))
    if len(images) > MAX_IMAGES:
        raise BadRequest(f"images: {len(images)} of them exceed the limit of {MAX_IMAGES}")
    for path, image in images:
        view = memoryview(image)
        start = bytes(view[:1])
        if start != b'"':
            raise BadRequest(f"{path}: expected a string, got {_KINDS.get(start, 'a number')}")
        if not await _is_base64(view[1:-1]):
            raise BadRequest(
                f"{path}: is not base64. Send the file's bytes as plain base64, without line "
                "breaks or a 'data:' prefix"
            )


def _images(chat: ChatRequest) -> Iterator[tuple[str, msgspec.Raw]]:
    """Yield every image with its path in the body."""
    for index, image in enumerate(chat.images):
        yield f"images[{index}]", image
    for number, message in enumerate([] if chat.messages is UNSET else chat.messages):
        for index, image in enumerate(message.images):
            yield f"messages[{number}].images[{index}]", image


async def _is_base64(text: memoryview) -> bool:
    """Return whether `text`, the inside of a JSON string, stands for base64 with its padding."""
    start = size = padding = 0
    while start < len(text):
        piece = bytes(text[start : start + PIECE_BYTES])
        start += len(piece)
        if start < len(text):
            # Do not cut an escape in two. Base64 has no escaped backslashes to consider.
            whole = piece.rfind(b"\\", -_LONGEST_ESCAPE)
            if whole > 0:
                start -= len(piece) - whole
                piece = piece[:whole]
        if b"\\" in piece:
            for escape, letter in _ESCAPES:
                piece = piece.replace(escape, letter)
        letters = piece.rstrip(b"=")
        if letters.translate(None, _ALPHABET) or (padding and letters):
            return False
        size += len(piece)
        padding += len(piece) - len(letters)
        if len(text) > PIECE_BYTES:
            await asyncio.sleep(0)
    return size > 0 and size % _QUANTUM == 0 and padding <= _MAX_PADDING
