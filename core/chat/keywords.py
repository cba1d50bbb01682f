"""Checks the keywords of one JSON schema: types, counts, bounds, names and values.

`schema` visits the schemas in a `format`, and each is checked here. tests/security/harmful.py
records what each version of Ollama does with the values that are refused.
"""

from collections.abc import Iterator
from typing import Any

from core.chat.pattern import MAX_REPETITIONS
from core.contract.errors import BadRequest

MAX_PROPERTIES = 256
"""In one object: the converter's time grows with their cube, and 2000 crash it."""
MAX_NAME = 256
"""Characters of a name: the converter's regular expressions recurse over it."""
MAX_CHOICES = 1000
"""Values of an `enum`, or alternatives."""
MAX_BOUND = 2**53
"""Of a number's `minimum` and `maximum`: beyond it, JSON's integers are not exact."""
MAX_WORK = 40_000
"""How many values may be examined for all schemas of a request, repeatedly if they refer to each
other: it takes some 25 ms, in a thread beside the other clients' requests."""

_TYPES = frozenset({"string", "number", "integer", "boolean", "null", "object", "array"})
_COUNTS = ("Length", "Items", "Properties", "Contains")
# In Ollama up to 0.30, the grammar of a text ends at its first quote, and has no other escapes.
_UNWRITABLE = frozenset(map(chr, range(0x20))) - set("\t\n\r") | {'"'}
# To exclude names, the converter writes each of their characters as a class.
_UNSAFE_IN_CLASS = frozenset("^]\\")

Schema = dict[str, Any]


class Work:
    """Counts what the schemas of one request cost."""

    def __init__(self) -> None:
        self._done = 0

    def add(self, amount: int = 1) -> None:
        """Count `amount` more values.

        Raises:
            BadRequest: they are too many.
        """
        self._done += amount
        if self._done > MAX_WORK:
            raise BadRequest(
                f"format: checking it means looking at more than {MAX_WORK} values. Send fewer or "
                "smaller schemas, with fewer references"
            )


def refused(path: str, problem: str) -> BadRequest:
    """Return the error for the value at `path`, such as `format.properties.age.minimum`."""
    return BadRequest(f"{path[:MAX_NAME]}: {problem}")


def check_keywords(schema: Schema, path: str, work: Work) -> int:
    """Check all keywords of `schema` except its pattern; return the sum of its repetitions.

    Raises:
        BadRequest: one of them may harm Ollama.
    """
    is_integer = "integer" in _types(schema, path)
    _check_bounds(schema, path, is_integer)
    check_properties(schema, path)
    for value in [*choices(schema, "enum", path), schema.get("const")]:
        for text in _texts(value, work):
            if not _UNWRITABLE.isdisjoint(text):
                raise refused(path, 'has a value with a " or a control character')
    if not isinstance(schema.get("format", ""), str) or len(schema.get("format", "")) > MAX_NAME:
        raise refused(f"{path}.format", f"must be a string of up to {MAX_NAME} characters")
    if schema.get("maxItems") == 0 and isinstance(schema.get("items"), dict):
        raise refused(f"{path}.maxItems", "must be at least 1, or leave out items")
    return sum(_repetitions(schema, name, path) for name in _COUNTS)


def choices(schema: Schema, name: str, path: str) -> list[Any]:
    """Return the list at `name`; an empty one if there is none.

    Raises:
        BadRequest: it is not a list, is empty, or is too long.
    """
    if name not in schema:
        return []
    values = schema[name]
    if not isinstance(values, list) or not 0 < len(values) <= MAX_CHOICES:
        raise refused(f"{path}.{name}", f"must be an array of 1 to {MAX_CHOICES} values")
    return values


def check_properties(schema: Schema, path: str) -> None:
    """Check the names in `properties` and `required`.

    Raises:
        BadRequest: they are too many, or unsafe.
    """
    properties = schema.get("properties", {})
    if not isinstance(properties, dict) or len(properties) > MAX_PROPERTIES:
        raise refused(f"{path}.properties", f"must be an object of up to {MAX_PROPERTIES} names")
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise refused(f"{path}.required", "must be an array of names")
    may_have_others = schema.get("additionalProperties", False) is not False
    for name in properties:
        if not _UNWRITABLE.isdisjoint(name):
            raise refused(f"{path}.properties", 'has a name with a " or a control character')
        if may_have_others and not (name.isascii() and name and _UNSAFE_IN_CLASS.isdisjoint(name)):
            raise refused(
                f"{path}.additionalProperties",
                f"must be false beside the property {name!r}: Ollama can exclude ASCII names only",
            )


def _types(schema: Schema, path: str) -> list[Any]:
    if "type" not in schema:
        return []
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    known = all(isinstance(name, str) and name in _TYPES for name in types)
    if not types or not known or len(set(types)) < len(types):
        raise refused(
            f"{path}.type", f"must be one of {', '.join(sorted(_TYPES))}, or an array of them"
        )
    return types


def _check_bounds(schema: Schema, path: str, is_integer: bool) -> None:
    """Check that a number can satisfy all its bounds, whichever of them the converter reads."""
    lower, upper = [float(-MAX_BOUND)], [float(MAX_BOUND)]
    for name, limits in (
        ("minimum", lower),
        ("exclusiveMinimum", lower),
        ("maximum", upper),
        ("exclusiveMaximum", upper),
    ):
        if name in schema:
            value = schema[name]
            if not _is_number(value) or abs(value) > MAX_BOUND:
                raise refused(
                    f"{path}.{name}", f"must be a number between {-MAX_BOUND} and {MAX_BOUND}"
                )
            step = (limits is lower) - (limits is upper) if "exclusive" in name else 0
            limits.append(int(value) + step if is_integer else value)
    if max(lower) > min(upper):
        raise refused(f"{path}.minimum", f"{max(lower):g} is above the maximum, {min(upper):g}")


def _repetitions(schema: Schema, name: str, path: str) -> int:
    """Return the larger of `minLength` and `maxLength`, if `name` is `Length`."""
    counts = {key: schema[key] for key in (f"min{name}", f"max{name}") if key in schema}
    for key, count in counts.items():
        if type(count) is not int or not 0 <= count <= MAX_REPETITIONS:
            raise refused(f"{path}.{key}", f"must be an integer between 0 and {MAX_REPETITIONS}")
    least = counts.get(f"min{name}", 0)
    most = counts.get(f"max{name}", MAX_REPETITIONS)
    if least > most:
        raise refused(f"{path}.min{name}", f"{least} is above max{name}, {most}")
    return max(counts.values(), default=0)


def _texts(value: Any, work: Work) -> Iterator[str]:
    """Yield the strings inside `value`, names included."""
    values = [value]
    while values:
        work.add()
        value = values.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            values += value
        elif isinstance(value, dict):
            yield from value
            values += value.values()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
