"""Reads a request's body, and explains an invalid one in the words of Go's encoding/json."""

import json
import re
from typing import Any, TypeVar

import msgspec

from core.engine.errors import EngineError

_T = TypeVar("_T")

_VALUE, _KEY = "looking for beginning of value", "looking for beginning of object key string"
# What Python's decoder expects, and how Go says that it is missing.
_SYNTAX = {
    "Expecting value": _VALUE,
    "Expecting property name enclosed in double quotes": _KEY,
    "Illegal trailing comma before end of object": _KEY,  # since Python 3.13
    "Illegal trailing comma before end of array": _VALUE,
    "Expecting ':' delimiter": "after object key",
    "Invalid control character at": "in string literal",
    "Invalid \\escape": "in string escape code",
    "Invalid \\uXXXX escape": r"in \u hexadecimal character escape",
}
_GO_TYPES = {
    "str": "string",
    "int": "int",
    "float": "float64",
    "bool": "bool",
    "object": "map[string]interface {}",
}
_ARRAYS = {"context": "[]int", "images": "[]api.ImageData", "messages": "[]api.Message"}
_JSON_TYPES = {"str": "string", "int": "number", "float": "number"}
_MISMATCH = re.compile(
    r"Expected `([a-z]+)[^`]*`, got `(\w+)`(?: - at `\$(?:\.(\w+))?(\[[.\d]+\])?(?:\.(\w+))?`)?"
)
_LITERALS = ("null", "true", "false")


def decode(body: bytes, type_: type[_T], *, empty: str = "missing request body") -> _T:
    """Return the request in `body`; as in Go, what follows its JSON value is ignored.

    Raises:
        EngineError: it is missing (`empty` says so) or invalid; 400.
    """
    if not body:
        raise EngineError(empty, 400)
    value = _parsed(body.decode(errors="replace"))
    try:
        return msgspec.convert(value, type_)
    except (msgspec.ValidationError, RecursionError) as error:
        raise EngineError(_in_go_words(str(error), value, type_), 400) from None


def _parsed(text: str) -> Any:
    start = len(text) - len(text.lstrip(" \t\r\n"))
    try:
        return json.JSONDecoder().raw_decode(text, start)[0]
    except RecursionError:
        raise EngineError("exceeded max depth", 400) from None
    except json.JSONDecodeError as error:
        raise EngineError(_syntax_error(text, error), 400) from None


def _syntax_error(text: str, error: json.JSONDecodeError) -> str:
    place, rest = error.pos, text[error.pos :].rstrip()
    if not rest or error.msg.startswith("Unterminated string"):
        return "unexpected EOF"
    for literal in _LITERALS:
        same = next((n for n, c in enumerate(literal) if n >= len(rest) or rest[n] != c), 0)
        if error.msg == "Expecting value" and same:
            if same == len(rest):
                return "unexpected EOF"
            where = f"in literal {literal} (expecting {_quoted(literal[same])})"
            return f"invalid character {_quoted(rest[same])} {where}"
    if error.msg.startswith("Expecting ',' delimiter"):
        where = f"after {_innermost(text[:place])}"
    else:
        where = _SYNTAX.get(error.msg, "in string escape code")
    if error.msg.startswith("Invalid \\"):
        place += 1
    return f"invalid character {_quoted(text[place : place + 1])} {where}"


def _innermost(text: str) -> str:
    """Return what has just ended in the innermost array or object that `text` leaves open."""
    open_: list[str] = []
    for mark in re.findall(r"[\[\]{}]", re.sub(r'"(?:[^"\\]|\\.)*"', "", text)):
        if mark in "[{":
            open_.append(mark)
        else:
            open_.pop()
    return "array element" if open_[-1] == "[" else "object key:value pair"


def _quoted(character: str) -> str:
    return {"'": r"'\''", "\n": r"'\n'", "\t": r"'\t'"}.get(character, f"'{character}'")


def _in_go_words(problem: str, value: Any, type_: type) -> str:
    name = type_.__name__
    found = _MISMATCH.match(problem)
    if not found:
        if " - at `$.think`" in problem:
            shown = msgspec.json.encode(value["think"]).decode()
            return (
                f'invalid think value: {shown} (must be "high", "medium", "low", "max", true, or '
                "false)"
            )
        return problem
    expected, got, field, item, inner = found.groups()
    kind = _JSON_TYPES.get(got, got)
    if field is None:
        return f"json: cannot unmarshal {kind} into Go value of type api.{name}"
    if item and got == "float":
        kind = f"number {next(n for n in value[field] if isinstance(n, float))}"
    go_type = _ARRAYS.get(field, "[]interface {}") if expected == "array" else _GO_TYPES[expected]
    path = f"{field}.{inner}" if inner else field
    return f"json: cannot unmarshal {kind} into Go struct field {name}.{path} of type {go_type}"
