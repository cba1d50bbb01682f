"""Finds the images in the messages of a relayed request, without decoding the rest."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Raw

from core.contract.errors import BadRequest
from core.contract.schemas import MAX_IMAGES, MAX_MESSAGES

T = TypeVar("T")

MAX_DEPTH = 8
STEP = 1000
"""How many values are examined in about a millisecond, before other clients get their turn."""
BYTES_PER_VALUE = 4096
"""Decoding this many takes as long as examining a value."""
_QUICK_BYTES = 64 * 1024
"""Decoding this many takes less time than other clients notice."""
_LOST = (Raw(b'"document"'), Raw(b'"search_result"'))
"""The types of Anthropic's blocks that Ollama leaves out silently (anthropic/anthropic.go)."""


class _Text(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["text"]
    text: str


class _Plain(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A message that can have no image, as most are."""

    role: str
    content: str | list[_Text] | None = None
    name: str | None = None
    tool_calls: Raw = Raw()
    tool_call_id: str | None = None


_decode_plain = msgspec.json.Decoder(Annotated[list[_Plain], Meta(max_length=MAX_MESSAGES)]).decode


class Pace:
    """Says when other clients should get their turn."""

    def __init__(self) -> None:
        self._work = 0

    def is_step(self, raw: Raw) -> bool:
        """Return whether a step is complete before the value `raw` is examined."""
        self._work += 1 + memoryview(raw).nbytes // BYTES_PER_VALUE
        if self._work <= STEP:
            return False
        self._work = 0
        return True


async def has_images(fields: dict[str, Raw]) -> bool:
    """Return whether the request carries images.

    Raises:
        BadRequest: there are too many images or messages; an image is a URL, which Ollama would
            have to fetch; or a part of a message is of a kind that Ollama leaves out.
    """
    count = 0
    for name in ("messages", "input"):
        raw = fields.get(name)
        if raw is not None and starts(raw, b"[", b"{") and not _is_plain(raw):
            async for image in _images(name, raw):
                count += _is_image(name, image)
                if count > MAX_IMAGES:
                    raise BadRequest(f"{name}: there are more than {MAX_IMAGES} images")
    return count > 0


def starts(raw: Raw, *beginnings: bytes) -> bool:
    """Return whether the JSON in `raw` begins with one of `beginnings`."""
    return memoryview(raw)[:8].tobytes().startswith(beginnings)


def decoded(name: str, raw: Raw, type_: type[T]) -> T:
    """Return the JSON in `raw`, from the field `name`, as a `type_`.

    Raises:
        BadRequest: it is something else.
    """
    try:
        return msgspec.json.decode(raw, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"{name}: {error}") from None


def _is_plain(raw: Raw) -> bool:
    """Return whether these are small messages without images: the search takes ten times longer."""
    if memoryview(raw).nbytes > _QUICK_BYTES:
        return False
    try:
        _decode_plain(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return True


async def _images(name: str, raw: Raw) -> AsyncIterator[Raw]:
    """Yield the image fields in `raw`: a message, a part of one, or a list of them."""
    pace = Pace()
    waiting = [(raw, 0)]
    while waiting:
        raw, depth = waiting.pop()
        if pace.is_step(raw):
            await asyncio.sleep(0)
        if not starts(raw, b"[", b"{"):
            continue
        if depth > MAX_DEPTH:
            raise BadRequest(f"{name}: is nested too deeply")
        if starts(raw, b"["):
            entries = decoded(name, raw, list[Raw])
            if name == "messages" and not depth and len(entries) > MAX_MESSAGES:
                raise BadRequest(f"messages: there are more than {MAX_MESSAGES}")
            waiting += [(entry, depth + 1) for entry in entries]
            continue
        part = decoded(name, raw, dict[str, Raw])
        _check(name, part)
        for key, value in part.items():
            if key.casefold() in {"image_url", "source"}:
                yield value
            elif key.casefold() in {"content", "output"}:
                waiting.append((value, depth + 1))


def _check(name: str, part: dict[str, Raw]) -> None:
    """Refuse a part of a message that Ollama would leave out silently."""
    kind = part.get("type")
    if kind is not None and kind in _LOST:
        shown = bytes(kind).decode()
        raise BadRequest(f"{name}: {shown} blocks are not supported. Send the text in a text block")
    if not starts(part.get("file_id", Raw(b"null")), b"null"):
        raise BadRequest(f"{name}: file_id: nothing is stored here. Send the content itself")


def _is_image(name: str, raw: Raw) -> bool:
    """Return whether the value of an `image_url` or a `source` is an image."""
    if starts(raw, b"{"):
        source = decoded(name, raw, dict[str, Raw])
        urls = [value for key, value in source.items() if key.casefold() == "url"]
        if not urls:
            return "data" in source
        raw = urls[-1]
    if not starts(raw, b'"data:'):
        raise BadRequest(
            f"{name}: image URLs are not supported. Send the image as a data: URL or, in "
            "Anthropic's API, as a base64 source"
        )
    return True
