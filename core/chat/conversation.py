"""A conversation as the array of integers that clients hand back: `context`.

The array is `[MARKER + VERSION, size, checksum, ...]` with three bytes to each further integer,
little-endian, so that a signed 32-bit integer holds any of them. Nothing is stored here: it works
with another model, on another server, and after a restart.
"""

import struct
import zlib
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta

from core.chat.phrases import PHRASES
from core.contract.errors import BadRequest
from core.contract.schemas import MAX_MESSAGES, ChatRequest, Message, Role

VERSION = 1
MARKER = 0x6F776100
"""Higher than any model's token ids, which a context consisted of before."""

_HEAD = 3
_BYTES = 3  # in each integer after the head
_ROLES: tuple[Role, ...] = ("system", "user", "assistant")
_NUMBERS = {role: number for number, role in enumerate(_ROLES)}
_PHRASES = PHRASES.encode()
_SHORT_BYTES = 4096
# Copied for each context: loading the phrases again would cost twice as much. For a short context,
# less memory gives the same result.
_DEFLATE = zlib.compressobj(wbits=-zlib.MAX_WBITS, zdict=_PHRASES)
_DEFLATE_SHORT = zlib.compressobj(wbits=-13, memLevel=6, zdict=_PHRASES)
_START_AGAIN = "Send the context of an answer unchanged, or start a new conversation"


class _Said(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """A message, by the index of its role in `_ROLES`."""

    role: Annotated[int, Meta(ge=0, lt=len(_ROLES))]
    text: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Annotated[list[_Said], Meta(max_length=MAX_MESSAGES)]).decode


def check(chat: ChatRequest) -> None:
    """Check that `chat` has exactly one conversation, which ends with the user's message.

    Raises:
        BadRequest: it has none, or two, or no such message; the text names the field.
    """
    if chat.messages is UNSET:
        if chat.message is UNSET:
            raise BadRequest("message: is required but missing")
        if not chat.message.strip():
            raise BadRequest("message: must not be empty or blank. Write what to say to the model")
        return
    if chat.message is not UNSET or chat.context or chat.images:
        raise BadRequest(
            "messages: replaces message, context and images. Send either messages or the others"
        )
    last = chat.messages[-1]
    if last.role != "user" or not (last.content.strip() or last.images):
        raise BadRequest(
            "messages: the last one must have the role user and content that is not blank. Write "
            "what to say to the model"
        )


def messages_of(chat: ChatRequest, limit: int) -> list[Message]:
    """Return the messages to send to the model: the conversation so far, and the new message.

    A new system prompt replaces the earlier one.

    Raises:
        BadRequest: the context is not from an answer of this API, or the conversation is over
            `limit` bytes of text.
    """
    if chat.messages is not UNSET:
        messages = chat.messages
    else:
        assert chat.message is not UNSET, "checked"
        earlier = decoded(chat.context, limit) if chat.context else []
        messages = [*earlier, Message(role="user", content=chat.message, images=chat.images)]
    if chat.system is not UNSET:
        new = [Message(role="system", content=chat.system)] if chat.system else []
        messages = [*new, *messages[messages[0].role == "system" :]]
    if sum([len(message.content.encode()) for message in messages]) > limit:
        raise too_long(limit)
    return messages


def context_of(messages: Sequence[Message], answer: str) -> list[int]:
    """Return the context for continuing after `answer`, compressed if that is shorter.

    Images and thinking are not part of it.
    """
    said = [(_NUMBERS[message.role], message.content) for message in messages]
    plain = _encode([*said, (_NUMBERS["assistant"], answer)])
    deflate = (_DEFLATE_SHORT if len(plain) < _SHORT_BYTES else _DEFLATE).copy()
    packed = deflate.compress(plain) + deflate.flush()
    is_packed = len(packed) < len(plain)
    data = packed if is_packed else plain
    count = -(-len(data) // _BYTES)
    padded = data.ljust(count * _BYTES, b"\0")
    spread = bytearray(4 * count)
    for index in range(_BYTES):
        spread[index::4] = padded[index::_BYTES]
    integers = struct.unpack(f"<{count}I", spread)
    return [MARKER + VERSION, 2 * len(data) + is_packed, _checksum(data), *integers]


def decoded(context: Sequence[int], limit: int) -> list[Message]:
    """Return the messages in `context`, whose integers are not negative and below 2**31.

    Raises:
        BadRequest: it is damaged, not from this API, or over `limit` bytes of text.
    """
    marker, size, checksum = (*context[:_HEAD], 0, 0, 0)[:_HEAD]
    if marker != MARKER + VERSION:
        raise BadRequest(f"context: is not one that this server can read. {_START_AGAIN}")
    size, is_packed = divmod(size, 2)
    rest = context[_HEAD:]
    count = len(rest)
    room = _room(limit)
    if count != -(-size // _BYTES):
        raise _damaged()
    if size > room:
        raise too_long(limit)
    spread = struct.pack(f"<{count}I", *rest)
    padded = bytearray(_BYTES * count)
    for index in range(_BYTES):
        padded[index::_BYTES] = spread[index::4]
    data = bytes(padded[:size])
    if any(spread[3::4]) or _checksum(data) != checksum:
        raise _damaged()
    try:
        said = _decode(_inflated(data, room, limit) if is_packed else data)
    except (msgspec.MsgspecError, UnicodeDecodeError, zlib.error):
        raise _damaged() from None
    return [Message(role=_ROLES[message.role], content=message.text) for message in said]


def max_integers(limit: int) -> int:
    """Return the most integers that a context of up to `limit` bytes of text can have."""
    return _HEAD + -(-_room(limit) // _BYTES)


def too_long(limit: int) -> BadRequest:
    """Return the error for a conversation of more than `limit` bytes of text."""
    return BadRequest(
        f"The conversation is longer than this server's limit of {limit} bytes of text. "
        "Start a new conversation"
    )


def _room(limit: int) -> int:
    return limit + 16 * MAX_MESSAGES  # for the parts of a message that are not its text


def _inflated(data: bytes, room: int, limit: int) -> bytes:
    inflate = zlib.decompressobj(wbits=-zlib.MAX_WBITS, zdict=_PHRASES)
    plain = inflate.decompress(data, room + 1)
    if len(plain) > room:
        raise too_long(limit)
    if not inflate.eof or inflate.unused_data:
        raise _damaged()
    return plain


def _checksum(data: bytes) -> int:
    return zlib.crc32(data) >> 1  # 31 bits


def _damaged() -> BadRequest:
    return BadRequest(f"context: was changed or cut off in transit. {_START_AGAIN}")
