"""Weighs the parts of a large body before they become objects of twenty times their size.

`msgspec.Raw` keeps each part as JSON, so that only weighed parts are decoded. Even so, megabytes
take milliseconds: hence the pauses, in which other clients get their turn.
"""

import asyncio

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from core.chat.conversation import max_integers, too_long
from core.contract.errors import BadRequest
from core.contract.schemas import MAX_IMAGES, MAX_MESSAGES

MAX_FIELD_BYTES = 64 * 1024
"""The limit for a field other than text, images and a context."""
MAX_QUOTES = 16 * MAX_MESSAGES
"""In `messages`, without those in their text: eight for each, and some for unknown fields."""

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
    """Return the JSON in `data` reduced to the known fields, each of them once.

    Otherwise a field that occurs twice would be decoded twice, but weighed once.

    Raises:
        BadRequest: a part is too large; `limit` is that of a conversation's text, in bytes.
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
    # Quotes in a text are escaped. The one that ends a text may be missed, the first never.
    quotes = _count(raw, b'"')
    await asyncio.sleep(0)
    if quotes - _count(raw, b'\\"') > MAX_QUOTES:
        raise BadRequest(
            f"messages: there are more than {MAX_MESSAGES}, or they have too many fields"
        )
    await asyncio.sleep(0)
    try:
        messages = _decode_messages(raw)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$")
        raise msgspec.ValidationError(f"{problem} - at `$.messages{path or '`'}") from None
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
    """Return how often `part` occurs, at the least: counting piece by piece avoids a copy."""
    view = memoryview(raw)
    size = 2**20
    return sum(bytes(view[at : at + size]).count(part) for at in range(0, len(view), size))
