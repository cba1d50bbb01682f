"""Small requests that harm Ollama, and what each version of Ollama does with them.

`ollama` is what a real one did or does: v0.24.0 was run, unless another version is named. `engine`
is what the built-in model's engine (xllamacpp 2026.10, which uses llguidance) does: it survives
nearly everything, so only the gateway's refusal protects a real Ollama.
"""

from typing import Any, NamedTuple


class Harmful(NamedTuple):
    name: str
    fields: dict[str, Any]
    """Fields of a chat request, apart from its message."""
    refusal: str
    """How the text of the gateway's 400 starts: the field, and its bound."""
    ollama: str
    engine: str


ABORTS = "the runner aborts; every stream of the model is cut"
SERVE = "the runner aborts; up to 0.29, `ollama serve` itself"
MEMORY = "15 to 18 GB within 60 s, never given back"
NEVER = "not run; its converter and grammar parser have no check for it"
REFUSES = "refuses it"
ANSWERS = "200"


def _format(name: str, schema: Any, refusal: str, ollama: str, engine: str) -> Harmful:
    return Harmful(f"format: {name}", {"format": schema}, f"format{refusal}", ollama, engine)


def _string(pattern: str, refusal: str, ollama: str, engine: str) -> Harmful:
    schema = {"type": "string", "pattern": pattern}
    return _format(f"pattern {pattern[:20]}", schema, f".pattern: {refusal}", ollama, engine)


def _option(name: str, value: Any, refusal: str, ollama: str, engine: str) -> Harmful:
    fields = {"options": {name: value}}
    return Harmful(f"{name}: {value}"[:40], fields, f"options.{name}{refusal}", ollama, engine)


_COUNT = "must be an integer between 0 and 2000"
_ITSELF = {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}
_EACH_OTHER = {
    "$ref": "#/$defs/a",
    "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}},
}
_COPIES_ITSELF = {
    "$ref": "#/$defs/a",
    "$defs": {"a": {"properties": {"b": {"allOf": [{"$ref": "#/$defs/a"}]}}}},
}


def _doubling(levels: int) -> dict[str, Any]:
    """Return a schema that `allOf` makes ten times as large at each level."""
    parts: dict[str, Any] = {f"d{levels}": {"type": "string"}}
    for level in range(levels):
        ref = {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}]}
        parts[f"d{level}"] = {"properties": {f"p{index}": ref for index in range(10)}}
    return {"$defs": parts, "allOf": [{"$ref": "#/$defs/d0"}]}


def _items(**keywords: Any) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "integer"}, **keywords}


HARMFUL = [
    # Counts
    _format(
        "maxLength", {"type": "string", "maxLength": 2001}, f".maxLength: {_COUNT}", ABORTS, ANSWERS
    ),
    _format(
        "minLength", {"type": "string", "minLength": 2001}, f".minLength: {_COUNT}", ABORTS, ANSWERS
    ),
    _format("maxItems", _items(maxItems=2002), f".maxItems: {_COUNT}", ABORTS, ANSWERS),
    _format("minItems", _items(minItems=2002), f".minItems: {_COUNT}", ABORTS, ANSWERS),
    _format("negative", _items(minItems=-1), f".minItems: {_COUNT}", ABORTS, REFUSES),
    _format(
        "negative length",
        {"type": "string", "maxLength": -1},
        f".maxLength: {_COUNT}",
        ABORTS,
        REFUSES,
    ),
    _format(
        "1e30", {"type": "string", "maxLength": 1e30}, f".maxLength: {_COUNT}", ABORTS, REFUSES
    ),
    _format("no items", _items(maxItems=0), ".maxItems: must be at least 1", NEVER, ANSWERS),
    _format(
        "min > max",
        _items(minItems=5, maxItems=2),
        ".minItems: 5 is above maxItems",
        MEMORY,
        REFUSES,
    ),
    _format(
        "min > max length",
        {"type": "string", "minLength": 5, "maxLength": 2},
        ".minLength: 5 is above maxLength",
        MEMORY,
        REFUSES,
    ),
    _format(
        "integer",
        {"type": "integer", "minimum": 5, "maximum": 2},
        ".minimum: 5 is above the maximum",
        ABORTS,
        REFUSES,
    ),
    _format(
        "no integer between",
        {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        ".minimum: 1 is above the maximum",
        ABORTS,
        REFUSES,
    ),
    _format(
        "many counts",
        {"prefixItems": [{"type": "string", "maxLength": 2000}] * 51},
        ": its counts and repetitions total more than 100000",
        NEVER,
        ANSWERS,
    ),
    # Alternatives, references, sizes
    _format("anyOf", {"anyOf": []}, ".anyOf: must be an array of 1 to 1000", ABORTS, REFUSES),
    _format("oneOf", {"oneOf": []}, ".oneOf: must be an array of 1 to 1000", ABORTS, REFUSES),
    _format("type", {"type": []}, ".type: must be one of", ABORTS, REFUSES),
    _format("enum", {"enum": []}, ".enum: must be an array of 1 to 1000", NEVER, REFUSES),
    _format("$ref to itself", _ITSELF, ".$ref: #/$defs/a refers to itself", ABORTS, REFUSES),
    _format("$ref in a circle", _EACH_OTHER, ".$ref: #/$defs/", NEVER, REFUSES),
    _format(
        "allOf of itself", _COPIES_ITSELF, ": the schema grows to over 3000 parts", NEVER, ANSWERS
    ),
    _format(
        "allOf of allOf", _doubling(8), ": the schema grows to over 3000 parts", NEVER, ANSWERS
    ),
    _format(
        "2000 properties",
        {"type": "object", "properties": {f"p{n}": {} for n in range(2000)}},
        ".properties: must be an object of up to 256 names",
        "15 s, then the runner aborts",
        ANSWERS,
    ),
    _format(
        "a name in Korean among others",
        {"type": "object", "properties": {"이름": {}}, "additionalProperties": True},
        ".additionalProperties: must be false beside",
        NEVER,
        ANSWERS,
    ),
    _format(
        "a quote in a value",
        {"enum": ['6"', "a"]},
        ': has a value with a "',
        NEVER,
        ANSWERS,
    ),
    # Patterns
    _string("^a{3000}$", "repeats a part more than 2000 times", ABORTS, ANSWERS),
    _string("^a{0,5000}$", "repeats a part more than 2000 times", ABORTS, ANSWERS),
    _string("^a{5,2}$", "has the repetition {5,2}, which is not possible", MEMORY, REFUSES),
    _string("^a{-1}$", "has a { that starts no repetition", ABORTS, REFUSES),
    _string("^()*$", "has an empty part", ABORTS, ANSWERS),
    _string("^(a|)+$", "has an empty part", ABORTS, ANSWERS),
    _string("^(a*)*$", "repeats a part that may be empty", ABORTS, ANSWERS),
    _string("^*$", "has a * where it has no meaning", SERVE, REFUSES),
    _string("^{1}$", "has a { where it has no meaning", SERVE, ANSWERS),
    _string("^(?$", "has a (?...), which Ollama cannot read", SERVE, REFUSES),
    _string(
        "^" + "(" * 2000 + "a" + ")" * 2000 + "$", "is longer than 512 characters", SERVE, REFUSES
    ),
    _string(
        "^" + "(" * 20 + "a" + ")" * 20 + "$", "has groups nested deeper than 16", NEVER, ANSWERS
    ),
    # Options
    _option(
        "repeat_penalty",
        0,
        ": expected a number >= 0.1",
        "the runner aborts (an assertion)",
        REFUSES,
    ),
    _option("repeat_penalty", 1e-300, ": expected a number >= 0.1", NEVER, REFUSES),
    _option(
        "repeat_last_n",
        2147483647,
        ": expected an integer <= 131072",
        "200, with 8.3 GB for this request",
        "8.7 GB, then it dies",
    ),
    _option("repeat_last_n", -2, ": expected an integer >= -1", "400 (v0.32)", ANSWERS),
    _option("top_k", 2147483647, ": expected an integer <= 1048576", ANSWERS, ANSWERS),
    _option("temperature", 1e-40, ": must be 0, or at least 0.001", NEVER, ANSWERS),
    _option(
        "stop", [""], "[0]: expected a string of length >= 1", "200, with an empty answer", ANSWERS
    ),
]
"""Each is small enough to pass every limit on sizes."""
