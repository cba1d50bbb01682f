"""Checks the JSON schema in `format`, which Ollama turns into a grammar with llama.cpp.

llama.cpp's converter (common/json-schema-to-grammar.cpp) trusts its input: counts that are too
large, negative or contradictory, empty alternatives, and references in circles take gigabytes,
minutes, or the whole of Ollama. `checked_format` visits a schema as the converter would, counts
what it would build, and refuses what exceeds a bound.
"""

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

import msgspec

from core.chat.keywords import (
    MAX_NAME,
    MAX_PROPERTIES,
    Schema,
    check_keywords,
    choices,
    refused,
)
from core.chat.pattern import Pattern, PatternRefused
from core.contract.errors import BadRequest

MAX_FORMAT_BYTES = 64 * 1024
"""Of a schema's JSON."""
MAX_DEPTH = 64
MAX_VISITS = 3000
"""How many schemas one is converted to, including the copies that `allOf` makes."""
MAX_REFERENCES = 256
"""Different ones: the converter copies what each refers to."""
MAX_TOTAL_REPETITIONS = 100_000
"""In a whole schema: some ten million make llama.cpp exhaust the memory."""

_ALTERNATIVES = ("anyOf", "oneOf", "allOf")
_SUBSCHEMAS = ("items", "prefixItems", "additionalProperties", "not", "contains", "propertyNames")
_NAMED_SUBSCHEMAS = ("properties", "$defs", "definitions")


def checked_format(raw: msgspec.Raw) -> msgspec.Raw:
    """Return the `format` in `raw` as the JSON to send: exactly what has been checked.

    Raises:
        BadRequest: it is not "json" or a JSON schema, or exceeds a bound; the text says which.
        msgspec.MsgspecError: it is neither a string nor an object.
    """
    if memoryview(raw).nbytes > MAX_FORMAT_BYTES:
        raise BadRequest(f"format: the schema is over {MAX_FORMAT_BYTES} bytes of JSON")
    try:
        value = msgspec.json.decode(raw, type=str | Schema)
    except msgspec.ValidationError as error:
        raise msgspec.ValidationError(f"{error} - at `$.format`") from None
    except RecursionError:
        raise _too_deep() from None
    if isinstance(value, dict):
        _Check(value).run()
    elif value != "json":
        raise BadRequest('format: must be "json" or a JSON schema')
    return msgspec.Raw(msgspec.json.encode(value))


class _Check:
    """One schema's check, with what has been counted so far."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._targets: dict[str, Schema] = {}
        self._followed: set[str] = set()
        self._visits = 0
        self._repetitions = 0

    def run(self) -> None:
        self._walk(self._root, MAX_DEPTH)
        self._visit(self._root, "format", MAX_DEPTH)
        followed = [(ref, self._targets[ref]) for ref in self._followed]
        graph = {ref: set(_direct_references(part)) for ref, part in followed}
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            raise refused(
                "format.$ref", f"{error.args[1][0][:MAX_NAME]} refers to itself"
            ) from None

    def _walk(self, value: Any, depth: int) -> None:
        """Check what matters anywhere: depth, names, and references, which are always resolved."""
        if not isinstance(value, dict | list):
            return
        if not depth:
            raise _too_deep()
        if isinstance(value, dict):
            if any(len(name) > MAX_NAME for name in value):
                raise BadRequest(f"format: a name is longer than {MAX_NAME} characters")
            if "$ref" in value:
                self._resolve(value["$ref"])
        for item in value.values() if isinstance(value, dict) else value:
            self._walk(item, depth - 1)

    def _resolve(self, ref: Any) -> None:
        where = "format.$ref"
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise refused(where, "must refer to a part of this schema, such as #/$defs/Name")
        target: Any = self._root
        for step in ref.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(target, list):
                target = dict(zip(map(str, range(len(target))), target, strict=True))
            target = target.get(name) if isinstance(target, dict) else None
        if not isinstance(target, dict):
            raise refused(where, f"{ref[:MAX_NAME]} does not exist in this schema")
        self._targets[ref] = target
        if len(self._targets) > MAX_REFERENCES:
            raise BadRequest(f"format: it refers to more than {MAX_REFERENCES} parts of itself")

    def _visit(self, schema: Any, path: str, depth: int) -> None:
        self._visits += 1
        if self._visits > MAX_VISITS or not depth:
            raise BadRequest(
                f"format: the schema grows to over {MAX_VISITS} parts, or {MAX_DEPTH} levels"
            )
        if not isinstance(schema, dict):
            raise refused(path, "must be a schema, which is an object")
        self._add(check_keywords(schema, path))
        if "pattern" in schema:
            schema["pattern"] = self._pattern(schema["pattern"], f"{path}.pattern")
        if "$ref" in schema and schema["$ref"] not in self._followed:
            self._followed.add(schema["$ref"])
            self._visit(self._targets[schema["$ref"]], schema["$ref"], depth - 1)
        for name, part in _subschemas(schema, path):
            self._visit(part, name, depth - 1)
        self._merge(schema.get("allOf", []), f"{path}.allOf", depth)

    def _merge(self, parts: list[Schema], path: str, depth: int) -> None:
        """Count what the converter copies for an `allOf`: properties, from references as well."""
        merged = 0
        for part in parts:
            for component in part.get("anyOf", [part]):
                target, steps = component, 0
                while "$ref" in target and steps < MAX_DEPTH:
                    target, steps = self._targets[target["$ref"]], steps + 1
                properties = target.get("properties", {})
                merged += len(properties)
                if merged > MAX_PROPERTIES:
                    raise refused(path, f"has more than {MAX_PROPERTIES} properties in all")
                if target is not component:
                    for name, schema in properties.items():
                        self._visit(schema, f"{path}.{name}", depth - 1)

    def _pattern(self, pattern: Any, path: str) -> str:
        if not isinstance(pattern, str):
            raise refused(path, "must be a string")
        try:
            checked = Pattern(pattern)
        except PatternRefused as error:
            raise refused(path, str(error)) from None
        self._add(checked.weight)
        return checked.text

    def _add(self, repetitions: int) -> None:
        self._repetitions += repetitions
        if self._repetitions > MAX_TOTAL_REPETITIONS:
            raise BadRequest(
                f"format: its counts and repetitions total more than {MAX_TOTAL_REPETITIONS}"
            )


def _too_deep() -> BadRequest:
    return BadRequest(f"format: the schema is nested deeper than {MAX_DEPTH} levels")


def _subschemas(schema: Schema, path: str) -> Iterator[tuple[str, Any]]:
    """Yield what is a schema in `schema`, each with its path."""
    for name in _ALTERNATIVES:
        for index, part in enumerate(choices(schema, name, path)):
            yield f"{path}.{name}[{index}]", part
    for name in _SUBSCHEMAS:
        parts = schema.get(name, [])
        for part in parts if isinstance(parts, list) else [parts]:
            if not (name == "additionalProperties" and isinstance(part, bool)):
                yield f"{path}.{name}", part
    for name in _NAMED_SUBSCHEMAS:
        parts = schema.get(name, {})
        if not isinstance(parts, dict):
            raise refused(f"{path}.{name}", "must be an object")
        for key, part in parts.items():
            yield f"{path}.{name}.{key}", part


def _direct_references(schema: Schema) -> Iterator[str]:
    """Yield the references that `schema` may stand for, without any text in between."""
    if "$ref" in schema:
        yield schema["$ref"]
    for name in _ALTERNATIVES:
        for part in schema.get(name, []):
            yield from _direct_references(part)
