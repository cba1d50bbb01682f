"""Weighs the parts of a large body before they become objects of twenty times their size.

`msgspec.Raw` leaves each part as the JSON it is: only what has been weighed is decoded. Megabytes
take milliseconds even so, hence the pauses in which other clients have their turn.
"""

import asyncio

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from core.chat.conversation import max_integers, too_long
from core.contract.errors import BadRequest
from core.contract.schemas import MAX_IMAGES, MAX_MESSAGES

MAX_FIELD_BYTES = 64 * 1024
"""Of a field that is neither text, nor images, nor a context."""
MAX_QUOTES = 16 * MAX_MESSAGES
"""In `messages`, besides those in their text: eight in each, and some for unknown fields."""

_LONGEST_ESCAPE = 3  # bytes of JSON for one of UTF-8: \u00e9 is six for two
_SLACK = 1024


class _Message(Struct, kw_only=True):
    role: Raw
    content: Raw
    images: Raw = Raw(b"[]")


class _Body(Struct, kw_only=True):
    """The fields of a `ChatRequest`; whatever else a body contains is dropped here."""

    message: Raw | UnsetType = UNSET
    messages: Raw | UnsetType = UNSET
    context: Raw | UnsetType = UNSET
    system: Raw | UnsetType = UNSET
    images: Raw | UnsetType = UNSET
    model: Raw | UnsetType = UNSET
    stream: Raw | UnsetType = UNSET
    options: Raw | UnsetType = UNSET
    format: Raw | UnsetType = UNSET
    think: Raw | UnsetType = UNSET


_decode = msgspec.json.Decoder(_Body).decode
_decode_messages = msgspec.json.Decoder(list[_Message]).decode


async def weighed(data: bytes | bytearray, limit: int) -> bytes:
    """Return the JSON in `data` with nothing but known fields, each of them once.

    A field that occurs twice would be decoded twice, but weighed once.

    Raises:
        BadRequest: a part of it is too large; `limit` is the most text of a conversation, in bytes.
        msgspec.MsgspecError: it is not valid JSON, or has the wrong types.
    """
    body = _decode(data)
    await asyncio.sleep(0)
    if body.context is not UNSET and _count(body.context, b",") >= max_integers(limit):
        raise too_long(limit)
    if body.images is not UNSET:
        _weigh_images(body.images)
    text = sum(_size(part) for part in (body.message, body.system))
    if body.messages is not UNSET:
        messages = await _weighed_messages(body.messages)
        text += sum(_size(message.content) for message in messages)
        body.messages = messages  # type: ignore[assignment]  # it will only be encoded
    if text > _LONGEST_ESCAPE * limit + _SLACK:
        raise too_long(limit)
    for name in ("model", "stream", "options", "format", "think"):
        if _size(getattr(body, name)) > MAX_FIELD_BYTES:
            raise BadRequest(f"{name}: is over {MAX_FIELD_BYTES} bytes of JSON")
    await asyncio.sleep(0)
    return msgspec.json.encode(body)


async def _weighed_messages(raw: Raw) -> list[_Message]:
    # Those in a text are escaped. The quote at the end of a text may be missed, never the first.
    quotes = _count(raw, b'"')
    await asyncio.sleep(0)
    if quotes - _count(raw, b'\\"') > MAX_QUOTES:
        raise BadRequest(f"messages: they are more than {MAX_MESSAGES}, or have too many fields")
    await asyncio.sleep(0)
    try:
        messages = _decode_messages(raw)
    except msgspec.ValidationError as error:
        raise msgspec.ValidationError(str(error).replace("`$", "`$.messages", 1)) from None
    await asyncio.sleep(0)
    for message in messages:
        _weigh_images(message.images)
    return messages


def _weigh_images(raw: Raw) -> None:
    # A `data:` prefix, which will be refused, has a comma of its own.
    if _count(raw, b",") > 2 * MAX_IMAGES:
        raise BadRequest(f"images: they exceed the limit of {MAX_IMAGES}")


def _size(raw: Raw | UnsetType) -> int:
    return 0 if raw is UNSET else memoryview(raw).nbytes


def _count(raw: Raw, part: bytes) -> int:
    """Return how often `part` occurs, at least: it is counted piece by piece, without a copy."""
    view = memoryview(raw)
    size = 2**20
    return sum(bytes(view[at : at + size]).count(part) for at in range(0, len(view), size))
