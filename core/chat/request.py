"""Reads a chat request: the bytes of a body become a `ChatRequest`, or a 4xx that says why."""

import base64
import binascii
import re
import string
from collections.abc import Iterator
from encodings import normalize_encoding
from encodings.aliases import aliases
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import UNSET
from starlette.requests import ClientDisconnect, Request

from core.chat.conversation import check, messages_of
from core.contract.errors import BadRequest, BodyTooLarge, UnsupportedMediaType
from core.contract.schemas import ChatRequest
from core.settings.schema import Settings

MAX_FORMAT_DEPTH = 64
MAX_FORMAT_REPETITIONS = 100_000
"""Total in a schema: some ten million make llama.cpp exhaust the memory."""
MAX_PROBLEM = 200

# Charsets that clients declare. Korean Windows calls cp949 by the name of its subset, euc-kr.
_CHARSETS = {
    "utf_8": "utf-8",
    "ascii": "ascii",
    "latin_1": "iso8859-1",
    "cp1252": "cp1252",
    "euc_kr": "cp949",
    "cp949": "cp949",
    "utf_16": "utf-16",
    "utf_16_le": "utf-16-le",
    "utf_16_be": "utf-16-be",
}
_MAX_CHARSET = 40
_JSON_TYPES = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "a boolean",
    "array": "an array",
    "object": "an object",
}

_LEFT_OF_HANGUL = string.punctuation + string.whitespace

_REPETITIONS = ("minItems", "maxItems", "minProperties", "maxProperties")

_decode = msgspec.json.Decoder(ChatRequest).decode


async def read_chat_request(request: Request, settings: Settings) -> ChatRequest:
    """Read the body of `request` and check everything that can be checked without Ollama.

    The request that is returned has its whole conversation in `messages`.

    Raises:
        ClientDisconnect: the client left before its body was complete.
        UnsupportedMediaType: the body is not declared as JSON.
        BodyTooLarge: the body is over `settings.max_body_bytes`.
        BadRequest: the body is not a valid request; the text names the field.
    """
    charset = _charset(request.headers.get("content-type", ""))
    body = await read_body(request, settings.max_body_bytes)
    chat = parse_chat_request(body, charset)
    chat.messages = messages_of(chat, settings.max_conversation_bytes)
    if _is_hangul_lost(chat.messages[-1].content, request):
        raise BadRequest(
            "message: only question marks arrived, because PowerShell replaced the letters. "
            'Call it with -ContentType "application/json; charset=utf-8"'
        )
    return chat


def parse_chat_request(body: bytes, charset: str) -> ChatRequest:
    """Parse and check a body that is encoded in `charset`, the name of a Python codec.

    Raises:
        BadRequest: it is not a valid request; the text names the field.
    """
    try:
        chat = _decode(body.decode(charset).removeprefix("\ufeff"))
    except UnicodeDecodeError:
        raise BadRequest(
            "The body is not valid text in its charset. Send it as UTF-8, with "
            "Content-Type: application/json; charset=utf-8"
        ) from None
    except msgspec.ValidationError as error:
        raise BadRequest(_in_json_terms(str(error))) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(
            f'The body is not valid JSON. Send an object such as {{"message": "Hello"}} ({error})'
        ) from None
    check(chat)
    if chat.format is not UNSET and _is_deeper_than(MAX_FORMAT_DEPTH, chat.format):
        raise BadRequest(f"format: the schema is nested deeper than {MAX_FORMAT_DEPTH} levels")
    if chat.format is not UNSET and _repetitions(chat.format) > MAX_FORMAT_REPETITIONS:
        raise BadRequest(
            f"format: {', '.join(_REPETITIONS)} total more than {MAX_FORMAT_REPETITIONS}"
        )
    for path, image in _images(chat):
        if not _is_base64(image):
            raise BadRequest(
                f"{path}: is not base64. Send the file's bytes as plain base64, without line "
                "breaks or a 'data:' prefix"
            )
    return chat


@lru_cache(maxsize=64)
def _charset(content_type: str) -> str:
    """Return the Python codec for the declared charset; UTF-8, JSON's own, if none is."""
    media_type, _, parameters = content_type.partition(";")
    if media_type.strip().lower() != "application/json":
        raise UnsupportedMediaType(
            "The body must be JSON. Send it with Content-Type: application/json; charset=utf-8"
        )
    declared = re.search(r'\bcharset\s*=\s*"?([^\s;"]+)', parameters, re.IGNORECASE)
    if not declared:
        return "utf-8"
    try:
        # codecs.lookup would keep every name that it is ever asked for.
        name = normalize_encoding(declared[1][:_MAX_CHARSET].lower())
        return _CHARSETS[aliases.get(name, name)]
    except KeyError:
        raise BadRequest(
            "The charset of the body is not supported. Send it as UTF-8, with "
            "Content-Type: application/json; charset=utf-8"
        ) from None


async def read_body(request: Request, limit: int) -> bytes:
    """Read the body; Starlette's RequestBodyLimitMiddleware would answer in plain text."""
    declared = request.headers.get("content-length", "0")
    size = int(declared) if declared.isdecimal() else 0
    chunks: list[bytes] = []
    more = size <= limit
    size = 0 if more else size
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        more = size <= limit and message.get("more_body", False)
    if size > limit:
        raise BodyTooLarge(
            f"The body is over {limit} bytes. Send a shorter message or smaller images"
        )
    return b"".join(chunks)


def _is_hangul_lost(message: str, request: Request) -> bool:
    """Return whether PowerShell before 7.4 sent `message` as Latin-1, which has no Hangul."""
    return (
        not message.strip(_LEFT_OF_HANGUL)
        and "?" in message
        and "powershell" in request.headers.get("user-agent", "").lower()
        and "utf" not in request.headers["content-type"].lower()
    )


def _in_json_terms(text: str) -> str:
    """Turn msgspec's "Expected `str`, got `int` - at `$.message`" into words for any client."""
    problem, _, path = text.rpartition(" - at `$")
    if not problem:
        problem, path = path, ""
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", problem):
        problem, path = "is required but missing", f"{path.rstrip('`')}.{missing[1]}"
    problem = re.sub(
        r"`([a-z| ]+)`",
        lambda names: " or ".join(_JSON_TYPES.get(name, name) for name in names[1].split(" | ")),
        problem,
    )
    return f"{path.strip('.`') or 'The body'}: {problem[0].lower()}{problem[1:MAX_PROBLEM]}"


def _is_deeper_than(depth: int, value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return depth == 0 or any(_is_deeper_than(depth - 1, item) for item in value)


def _repetitions(schema: Any) -> int:
    """Return the sum of all repetition counts in `schema`, each capped just above the limit."""
    if isinstance(schema, list):
        return sum(map(_repetitions, schema))
    if not isinstance(schema, dict):
        return 0
    counts = [schema[name] for name in _REPETITIONS if isinstance(schema.get(name), int | float)]
    bounded = [int(min(max(0, count), MAX_FORMAT_REPETITIONS + 1)) for count in counts]
    return sum(bounded) + _repetitions([*schema.values()])


def _images(chat: ChatRequest) -> Iterator[tuple[str, str]]:
    """Yield every image with its path in the body."""
    for index, image in enumerate(chat.images):
        yield f"images[{index}]", image
    for number, message in enumerate([] if chat.messages is UNSET else chat.messages):
        for index, image in enumerate(message.images):
            yield f"messages[{number}].images[{index}]", image


def _is_base64(text: str) -> bool:
    try:
        return bool(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return False
