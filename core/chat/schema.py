"""Checks the JSON schema in `format`, which Ollama turns into a grammar with llama.cpp.

llama.cpp's converter (common/json-schema-to-grammar.cpp) trusts its input: counts that are too
large, negative or contradictory, empty alternatives, and circular references take gigabytes or
minutes, or crash Ollama. `checked_format` visits a schema as the converter would, counts what it
would build, and refuses what exceeds a bound.
"""

import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

import msgspec

from core.chat.keywords import (
    MAX_NAME,
    MAX_PROPERTIES,
    Schema,
    Work,
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
"""How many schemas one may expand to, including the copies that `allOf` makes."""
MAX_REFERENCES = 256
"""Distinct ones: the converter copies what each refers to."""
MAX_TOTAL_REPETITIONS = 100_000
"""In a whole schema: some ten million make llama.cpp exhaust the memory."""
VISIT = 8
"""What visiting a schema costs, in values examined."""

_ALTERNATIVES = ("anyOf", "oneOf", "allOf")
_SUBSCHEMAS = ("items", "prefixItems", "additionalProperties", "not", "contains", "propertyNames")
_NAMED_SUBSCHEMAS = ("properties", "$defs", "definitions")
_KEYWORDS = frozenset((*_ALTERNATIVES, *_SUBSCHEMAS, *_NAMED_SUBSCHEMAS))
_INDEX = re.compile(r"0|[1-9][0-9]{0,4}")


def checked_format(raw: msgspec.Raw, work: Work) -> msgspec.Raw:
    """Return the `format` in `raw` as the JSON to send: exactly what has been checked.

    `work` is shared by all the schemas of a request.

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
        _Check(value, work).run()
    elif value != "json":
        raise BadRequest('format: must be "json" or a JSON schema')
    return msgspec.Raw(msgspec.json.encode(value))


class _Check:
    """One schema's check, with what has been counted so far."""

    def __init__(self, root: Schema, work: Work) -> None:
        self._root = root
        self._work = work
        self._targets: dict[str, Schema] = {}
        self._followed: set[str] = set()
        self._weights: dict[int, int] = {}  # by the identity of a schema that has been checked
        self._visits = 0
        self._repetitions = 0

    def run(self) -> None:
        self._walk(self._root, MAX_DEPTH)
        self._visit(self._root, "format", MAX_DEPTH)
        followed = [(ref, self._targets[ref]) for ref in self._followed]
        graph = {ref: set(self._direct_references(part)) for ref, part in followed}
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            raise refused(
                "format.$ref", f"{error.args[1][0][:MAX_NAME]} refers to itself"
            ) from None

    def _walk(self, value: Any, depth: int) -> None:
        """Check what matters anywhere: depth, names, and references, which are always resolved."""
        if not depth:
            raise _too_deep()
        self._work.add(len(value))
        if isinstance(value, dict):
            if any(len(name) > MAX_NAME for name in value):
                raise BadRequest(f"format: a name is longer than {MAX_NAME} characters")
            if "$ref" in value:
                self._resolve(value["$ref"])
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, dict | list):
                self._walk(item, depth - 1)

    def _resolve(self, ref: Any) -> None:
        where = "format.$ref"
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise refused(where, "must refer to a part of this schema, such as #/$defs/Name")
        if ref in self._targets:
            return
        steps = ref.split("/", MAX_DEPTH + 1)[1:]
        self._work.add(len(steps))
        target: Any = self._root
        for step in steps:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict):
                target = target.get(name)
            elif isinstance(target, list) and _INDEX.fullmatch(name):
                target = target[int(name)] if int(name) < len(target) else None
            else:
                target = None
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
        self._work.add(VISIT)
        if id(schema) not in self._weights:
            self._weights[id(schema)] = self._keywords(schema, path)
        self._add(self._weights[id(schema)])
        if "$ref" in schema and schema["$ref"] not in self._followed:
            self._followed.add(schema["$ref"])
            self._visit(self._targets[schema["$ref"]], schema["$ref"][:MAX_NAME], depth - 1)
        for name, part in _subschemas(schema, path[:MAX_NAME]):
            self._visit(part, name, depth - 1)
        self._merge(schema.get("allOf", []), f"{path}.allOf", depth)

    def _keywords(self, schema: Schema, path: str) -> int:
        """Check all keywords of a schema; return the sum of its repetitions."""
        weight = check_keywords(schema, path, self._work)
        if "pattern" in schema:
            pattern = _pattern(schema["pattern"], f"{path}.pattern")
            self._work.add(len(pattern.text))
            schema["pattern"] = pattern.text
            weight += pattern.weight
        return weight

    def _merge(self, parts: list[Schema], path: str, depth: int) -> None:
        """Count what the converter copies for an `allOf`: properties, from references as well."""
        merged = 0
        for part in parts:
            for component in part.get("anyOf", [part]):
                self._work.add()
                target, steps = component, 0
                while "$ref" in target and steps < MAX_DEPTH:
                    self._work.add()
                    target, steps = self._targets[target["$ref"]], steps + 1
                properties = target.get("properties", {})
                merged += len(properties)
                if merged > MAX_PROPERTIES:
                    raise refused(path, f"has more than {MAX_PROPERTIES} properties in all")
                if target is not component:
                    for name, schema in properties.items():
                        self._visit(schema, f"{path}.{name}", depth - 1)

    def _direct_references(self, schema: Schema) -> Iterator[str]:
        """Yield the references that `schema` may stand for, with no text in between."""
        parts = [schema]
        while parts:
            self._work.add()
            part = parts.pop()
            if "$ref" in part:
                yield part["$ref"]
            for name in _ALTERNATIVES:
                parts += part.get(name, [])

    def _add(self, repetitions: int) -> None:
        self._repetitions += repetitions
        if self._repetitions > MAX_TOTAL_REPETITIONS:
            raise BadRequest(
                f"format: its counts and repetitions total more than {MAX_TOTAL_REPETITIONS}"
            )


def _pattern(pattern: Any, path: str) -> Pattern:
    if not isinstance(pattern, str):
        raise refused(path, "must be a string")
    try:
        return Pattern(pattern)
    except PatternRefused as error:
        raise refused(path, str(error)) from None


def _too_deep() -> BadRequest:
    return BadRequest(f"format: the schema is nested deeper than {MAX_DEPTH} levels")


def _subschemas(schema: Schema, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the subschemas of `schema`, each with its path."""
    for name, parts in schema.items():
        if name not in _KEYWORDS:
            continue
        where = f"{path}.{name}"
        if name in _ALTERNATIVES:
            for index, part in enumerate(choices(schema, name, path)):
                yield f"{where}[{index}]", part
        elif name in _NAMED_SUBSCHEMAS:
            if not isinstance(parts, dict):
                raise refused(where, "must be an object")
            for key, part in parts.items():
                yield f"{where}.{key}", part
        else:
            for part in parts if isinstance(parts, list) else [parts]:
                if not (name == "additionalProperties" and isinstance(part, bool)):
                    yield where, part
