"""Reads a chat request: the bytes of a body become a `ChatRequest`, or a 4xx that says why."""

import asyncio
import re
import string
from encodings import normalize_encoding
from encodings.aliases import aliases
from functools import lru_cache

import msgspec
from msgspec import UNSET
from starlette.requests import Request

from core.chat.body import (
    QUICK_BODY_BYTES,
    SMALL_BODY_BYTES,
    MemoryBudget,
    json_problem,
    read_body,
)
from core.chat.conversation import check, max_integers, messages_of, too_long
from core.chat.images import check_images
from core.chat.large import weighed
from core.chat.parts import MAX_PARTS
from core.context import fields_of
from core.contract.errors import BadRequest, UnsupportedMediaType
from core.contract.schemas import MAX_CONTEXT_LENGTH, MAX_MESSAGES, ChatRequest, Options
from core.settings.schema import Settings

MIN_TEMPERATURE = 0.001
"""The lowest above 0: llama.cpp divides by it, and infinity is not a probability."""
MAX_PROBLEM = 200

# Charsets that clients declare. Korean Windows calls cp949 by the name of its subset, euc-kr.
_CHARSETS = {
    "utf_8": "utf-8",
    "ascii": "ascii",
    "latin_1": "iso8859-1",
    "cp1252": "cp1252",
    "euc_kr": "cp949",
    "cp949": "cp949",
    "windows_949": "cp949",
    "x_windows_949": "cp949",
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
_WORDS = {"role": "system, user or assistant", "think": "true, false, low, medium or high"}
"""The allowed values of fields with only a few."""

_MODEL_NAME = (
    "must be a model's name, such as llama3.1:8b. GET /api/models lists the installed ones"
)

_LEFT_OF_HANGUL = string.punctuation + string.whitespace

_decode = msgspec.json.Decoder(ChatRequest).decode
_encode = msgspec.json.Encoder().encode


class PendingChat:
    """A valid request. A large one is kept as JSON until its turn: its objects would be larger."""

    __slots__ = ("_json", "_request", "model", "stream")

    def __init__(self, request: ChatRequest, *, is_large: bool) -> None:
        self.model = request.model
        self.stream = request.stream
        # Copied, because msgspec's buffer leaves holes of half its size in the heap.
        self._json = bytes(memoryview(_encode(request))) if is_large else b""
        self._request = None if is_large else request

    async def take(self) -> ChatRequest:
        """Return the request, now that its turn has come."""
        if self._request is None:
            self._request, self._json = _decode(self._json), b""
            await asyncio.sleep(0)  # let other clients have their turn
        return self._request


async def read_chat_request(
    request: Request, settings: Settings, budget: MemoryBudget
) -> PendingChat:
    """Read the body of `request` and check everything that can be checked without Ollama.

    The request that is returned has its whole conversation in `messages`.

    Raises:
        ApiError: the body does not arrive (as for `read_body`), is not declared as JSON, or is
            not a valid request; the text names the field.
    """
    charset = charset_of(fields_of(request.scope).get(b"content-type", b""))
    limit = settings.max_conversation_bytes
    max_parts = max_integers(limit) + MAX_PARTS
    # Handed over in a list, so that it is freed as soon as its parts have been copied.
    body = [await read_body(request, charset, settings, budget, max_parts)]
    size = len(body[0])
    if size <= QUICK_BODY_BYTES:
        chat = await parse_chat_request(body.pop(), limit)
    else:
        async with budget.turn:
            chat = await parse_chat_request(body.pop(), limit)
    chat.messages = messages_of(chat, limit)
    if len(chat.messages) > MAX_MESSAGES:
        raise too_long(limit)
    chat.message, chat.context, chat.system, chat.images = UNSET, None, UNSET, []
    if _is_hangul_lost(chat.messages[-1].content, request):
        raise BadRequest(
            "message: only question marks arrived, because PowerShell replaced the letters. "
            'Call it with -ContentType "application/json; charset=utf-8"'
        )
    return PendingChat(chat, is_large=size > SMALL_BODY_BYTES)


async def parse_chat_request(body: bytes | bytearray, limit: int) -> ChatRequest:
    """Parse and check a body of JSON in UTF-8, whose text may have about `limit` bytes.

    Raises:
        BadRequest: it is not a valid request; the text names the field.
    """
    try:
        if len(body) > SMALL_BODY_BYTES:
            body = await weighed(body, limit)
            await asyncio.sleep(0)  # let other clients have their turn
        chat = _decode(body)
        if chat.format is not UNSET:
            # In a thread: other clients need not wait for all of it.
            chat.format = await asyncio.to_thread(_checked_format, chat.format)
    except msgspec.ValidationError as error:
        raise BadRequest(in_json_terms(str(error))) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(
            'The body is not valid JSON. Send an object such as {"message": "Hello"} '
            f"({json_problem(error, body)})"
        ) from None
    if chat.options is not UNSET:
        chat.options = _checked_options(chat.options)
    check(chat)
    if chat.images or chat.messages is not UNSET:
        await check_images(chat)
    return chat


def _checked_format(format_: msgspec.Raw) -> msgspec.Raw:
    # Few requests have one, and importing these would add 4 ms to a function's cold start.
    from core.chat.keywords import Work  # noqa: PLC0415
    from core.chat.schema import checked_format  # noqa: PLC0415

    return checked_format(format_, Work())


def _checked_options(options: Options) -> Options:
    """Return `options` in the form that every Ollama understands."""
    if options.temperature is not UNSET and 0 < options.temperature < MIN_TEMPERATURE:
        raise BadRequest(f"options.temperature: must be 0, or at least {MIN_TEMPERATURE}")
    if options.repeat_last_n == -1:  # all of the context: refused by Ollama 0.32
        return msgspec.structs.replace(options, repeat_last_n=MAX_CONTEXT_LENGTH)
    return options


@lru_cache(maxsize=64)
def charset_of(content_type: bytes) -> str:
    """Return the Python codec for the declared charset; UTF-8, JSON's own, if none is.

    Raises:
        UnsupportedMediaType: it is not JSON, which a foreign web page cannot send.
        BadRequest: the charset is unknown.
    """
    media_type, _, parameters = content_type.decode("latin-1").partition(";")
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


def _is_hangul_lost(message: str, request: Request) -> bool:
    """Return whether PowerShell before 7.4 sent `message` as Latin-1, which has no Hangul."""
    return (
        not message.strip(_LEFT_OF_HANGUL)
        and "?" in message
        and "powershell" in request.headers.get("user-agent", "").lower()
        and "utf" not in request.headers["content-type"].lower()
    )


def in_json_terms(text: str) -> str:
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
    path = path.strip(".`")
    if problem.startswith("Expected a string matching regex"):  # only a model's name has one
        return f"{path}: {_MODEL_NAME}"
    known = _WORDS.get(path.rpartition(".")[2]) if problem.startswith("Invalid enum") else None
    advice = f". Use {known}" if known else ""
    return f"{path or 'The body'}: {problem[0].lower()}{problem[1:MAX_PROBLEM]}{advice}"
