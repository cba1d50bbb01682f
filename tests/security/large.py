"""Requests of up to 20 MiB, and small ones that cause much work, with the statuses they get."""

import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from core.chat.conversation import context_of
from core.contract.schemas import Message

MAX_BODY = 20 * 2**20
ROOM = 16


def filled(start: bytes, unit: bytes, end: bytes) -> bytes:
    """Return a body of at most MAX_BODY bytes, with as many `unit`s as fit."""
    return start + unit * ((MAX_BODY - ROOM - len(start) - len(end)) // len(unit)) + end


_ASK = b'{"message":"a","model":"smollm2:135m",'
_TALK = b'{"model":"smollm2:135m","messages":['
_SAID = b'{"role":"user","content":"b"}'
_CHAT: dict[str, tuple[int, bytes]] = {
    "an image": (200, filled(_ASK + b'"images":["', b"AAAA", b'"]}')),
    "an image, as .NET escapes it": (200, filled(_ASK + b'"images":["', b"AA\\u002B/", b'"]}')),
    "an image, as PHP escapes it": (200, filled(_ASK + b'"images":["', b"AA\\/\\/", b'"]}')),
    "an image in a conversation": (
        200, filled(_TALK + b'{"role":"user","content":"b","images":["', b"AAAA", b'"]}]}'),
    ),
    "a field that nobody knows": (200, filled(_ASK + b'"x":"', b"a", b'"}')),
    "brackets that nobody asked for": (400, filled(_ASK + b'"x":[', b"[[[[[[[]]]]]]],", b"0]}")),
    "objects that nobody asked for": (400, filled(_ASK + b'"x":[', b"{},", b"{}]}")),
    "names that nobody asked for": (400, filled(_ASK, b'"":1,', b'"x":1}')),
    "a field again and again": (400, filled(_ASK, b'"images":[],', b'"x":1}')),
    "a schema of alternatives": (400, filled(_ASK + b'"format":{"enum":[', b"{},", b"{}]}}")),
    "a schema of names": (400, filled(_ASK + b'"format":{', b'"":1,', b'"x":1}}')),
    "a text with one emoji": (400, filled('{"message":"😀'.encode(), b"a", b'"}')),
    "a text of emoji": (400, filled(b'{"message":"', "😀".encode(), b'"}')),
    "a text of escapes": (400, filled(b'{"message":"', b"\\ud83d\\ude00", b'"}')),
    "a conversation's text": (400, filled(_TALK + b'{"role":"user","content":"', b"\\n", b'"}]}')),
    "small messages": (400, filled(_TALK, _SAID + b",", _SAID + b"]}")),
    "a context": (400, filled(_ASK + b'"context":[', b"1,", b"1]}")),
    "two contexts": (400, filled(_ASK + b'"context":[', b"1,", b'1],"context":[]}')),
    "small images": (400, filled(_ASK + b'"images":[', b'"AAAA",', b'"AAAA"]}')),
    "numbers for images": (400, filled(_ASK + b'"images":[', b"1,", b"1]}")),
    "no image": (400, filled(_ASK + b'"images":["', b"AAAA", b'!"]}')),
    "stop words": (400, filled(_ASK + b'"options":{"stop":[', b'"a",', b'"a"]}}')),
    "a number": (400, filled(b'{"message":"a","context":[', b"1", b"]}")),
    "blanks": (400, filled(b"", b" ", b"")),
    "garbage": (400, filled(b"[", b"{", b"")),
    "bytes that are no text": (400, filled(b'{"message":"', b"a", b'\xff"}')),
}  # fmt: skip


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


_LETTERS = random.Random(1)  # noqa: S311 - a text that compression does not make small
_TEXT = "".join(chr(_LETTERS.randint(0xAC00, 0xD7A3)) for _ in range(2**20 // 3 - 99))
_SHORT = [Message(role="user", content=_TEXT[at : at + 85]) for at in range(0, len(_TEXT), 86)]
LONGEST = {
    "the longest context": (200, _json({"message": "a", "context": context_of(_SHORT, "")})),
    "the longest conversation": (
        200, msgspec.json.encode({"messages": [*_SHORT, {"role": "user", "content": "a"}]}),
    ),
    "the longest message": (200, _json({"message": _TEXT})),
}  # fmt: skip

_WORDS = b'{"model":"smollm2:135m","input":['
_PARTS = b'{"model":"smollm2:135m","messages":[{"role":"user","content":['
_IMAGE = b'{"type":"image_url","image_url":{"url":"data:image/png;base64,'


def _nested(depth: int) -> dict[str, Any]:
    """Return a schema that is nested `depth` times, and references to each of its levels."""
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"anyOf": [schema, *[{}] * 90]}
    refs = [{"$ref": "#/d" + "/anyOf/0" * level} for level in range(depth)]
    return {"d": schema, "oneOf": refs}


SCHEMAS: dict[str, tuple[int, Any]] = {
    "references into a list": (200, {"a": [{}] + [0] * 15000, "b": [{"$ref": "#/a/0"}] * 1500}),
    "references to many places in a list": (
        200, {"a": [{}] * 250 + [0] * 15000, "b": [{"$ref": f"#/a/{n}"} for n in range(250)]},
    ),
    "a long value, again and again": (
        400,
        {
            "a": {"properties": {"p": {"const": [0] * 10000}}},
            "anyOf": [{"allOf": [{"$ref": "#/a"}] * 250}] * 10,
        },
    ),
    "alternatives, again and again": (
        400,
        {
            "P": {"properties": {"x": {"allOf": [{"anyOf": [{}] * 900}] * 3}}},
            "anyOf": [{"allOf": [{"$ref": "#/P"}] * 250}] * 10,
        },
    ),
    "alternatives of alternatives": (400, _nested(55)),
    "values inside values": (
        400,
        {
            "c": json.loads(('{"x":[' + "0," * 250 + '0],"const":') * 55 + "0" + "}" * 55),
            "anyOf": [{"$ref": "#/c" + "/const" * level} for level in range(54)],
        },
    ),
    "a long reference": (400, {"$ref": "#" + "/a" * 32000}),
    "patterns": (400, {"prefixItems": [{"pattern": "^" + "(a|b)" * 100 + "$"}] * 120}),
    "many parts": (200, {"anyOf": [{"anyOf": [{}] * 990}] * 3}),
    "many values": (200, {"a": [{}] * 21000}),
}  # fmt: skip
"""Of up to 64 KiB."""

_FIELDS: dict[str, Callable[[Any], Any]] = {
    "response_format": lambda schema: {"json_schema": {"schema": schema}},
    "text": lambda schema: {"format": {"schema": schema}},
    "format": lambda schema: {"schema": schema},
    "output_format": lambda schema: {"schema": schema},
    "output_config": lambda schema: {"format": {"schema": schema}},
}

_V1: dict[str, tuple[str, int, bytes]] = {
    "a schema in each field": (
        "chat/completions",
        400,
        _json({name: of(SCHEMAS["many parts"][1]) for name, of in _FIELDS.items()}),
    ),
    "a schema inside formats": (
        "responses", 400, b'{"text":' + b'{"format":' * 6000 + b"0" + b"}" * 6001
    ),
    "an image for /v1": (
        "chat/completions", 200, filled(_PARTS + _IMAGE, b"AAAA", b'"}}]}]}')
    ),
    "images for /v1": (
        "chat/completions", 400,
        filled(_PARTS, _IMAGE + b'AAAA"}},', _IMAGE + b'AAAA"}}]}]}'),
    ),
    "33 images for /v1": (
        "chat/completions", 400, _PARTS + (_IMAGE + b'AAAA"}},') * 33 + b'""]}]}'
    ),
    "a text for /v1": ("completions", 200, filled(b'{"prompt":"', b"a,b:[{", b'"}')),
    "a text of escapes for /v1": ("completions", 200, filled(b'{"prompt":"', b'\\"', b'"}')),
    "a text of emoji for /v1": ("responses", 200, filled(b'{"input":"', "😀".encode(), b'"}')),
    "a model's name of emoji": ("messages", 400, filled(b'{"model":"', "😀".encode(), b'"}')),
    "zeros for messages": (
        "chat/completions", 400, filled(b'{"messages":[', b"0,", b"0]}")
    ),
    "as many zeros as there may be": (
        "chat/completions", 400, b'{"messages":[' + b"0," * 130_000 + b"0]}"
    ),
    "zeros in a message": (
        "messages", 200, b'{"messages":[{"role":"user","content":[' + b"0," * 130_000 + b"0]}]}"
    ),
    "a small body of zeros": ("responses", 200, _WORDS + b"0," * 32_000 + b"0]}"),
    "objects for messages": (
        "chat/completions", 400, b'{"messages":[' + b"{}," * 65_000 + b"{}]}"
    ),
    "many small messages": (
        "chat/completions", 400, b'{"messages":[' + (_SAID + b",") * 4096 + _SAID + b"]}"
    ),
    "many names": (
        "chat/completions", 400, b'{"0":0' + b"".join(b',"%d":0' % n for n in range(700_000)) + b"}"
    ),
    "as many names as there may be": (
        "chat/completions", 400, b'{"0":0' + b"".join(b',"%d":0' % n for n in range(40_000)) + b"}"
    ),
    "a developer's conversation": (
        "chat/completions", 200,
        filled(
            b'{"messages":[{"role":"developer","content":"b"},',
            b'{"role":"user","content":"' + b"a\\n" * 7000 + b'"},',
            _SAID + b"]}",
        ),
    ),
    "names in a message": (
        "chat/completions", 200,
        b'{"messages":[{"0":0' + b"".join(b',"%d":0' % n for n in range(40_000)) + b"}]}",
    ),
    "lists in lists": (
        "responses", 400, b'{"input":[' + b"[[[[[[[[[[0]]]]]]]]]]," * 5000 + b"0]}"
    ),
    "texts to embed": ("embeddings", 200, _WORDS + b'"ab",' * 40_000 + b'"ab"]}'),
    "tokens to embed": ("embeddings", 400, filled(_WORDS, b"1,", b"1]}")),
    "stop words for /v1": ("completions", 400, filled(b'{"stop":[', b'"a",', b'"a"]}')),
    "blanks for /v1": ("completions", 400, filled(b"{", b" ", b"}")),
    "quotes for /v1": ("completions", 400, filled(b"{", b'""', b"}")),
    "brackets for /v1": ("completions", 400, filled(b'{"x":', b"[", b"}")),
}  # fmt: skip


class Large(NamedTuple):
    """A request to send, and the status that comes back."""

    path: str
    status: int
    body: bytes


LARGE = {
    **{name: Large("/api/chat", *case) for name, case in (_CHAT | LONGEST).items()},
    **{
        name: Large("/api/chat", status, _json({"message": "a", "format": schema}))
        for name, (status, schema) in SCHEMAS.items()
    },
    **{name: Large(f"/v1/{path}", status, body) for name, (path, status, body) in _V1.items()},
}
