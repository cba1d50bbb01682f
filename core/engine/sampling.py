"""Translates Ollama's options and format to parameters of llama.cpp's POST /completion."""

from typing import Any

import msgspec

from core.engine.errors import EngineError
from core.engine.model import CONTEXT_LENGTH, PARAMETERS

_INT32 = 2**31

# api/types.go of Ollama, DefaultOptions. The other options would reload the model, or have
# nothing to do with sampling.
_DEFAULTS: dict[str, float | list[str]] = {
    "num_predict": -1,
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repeat_last_n": 64,
    "repeat_penalty": 1.1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "seed": -1,
    "stop": [],
}
_GO_TYPES: dict[type, str] = {float: "float32", int: "integer", list: "array"}
# Without it the grammar allows whitespace anywhere, and a small model may never write anything
# else (llguidance, docs/json_schema.md).
_ONE_LINE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def sampling(options: dict[str, Any]) -> dict[str, Any]:
    """Return llama.cpp's parameters for `options`; the defaults are the model's, then Ollama's.

    Raises:
        EngineError: an option has the wrong type: 500, as in Ollama.
    """
    known = {name: value for name, value in options.items() if name in _DEFAULTS}
    values = (
        _DEFAULTS
        | PARAMETERS
        | {name: _typed(name, value) for name, value in known.items() if value is not None}
    )
    limit = values.pop("num_predict")
    if limit >= CONTEXT_LENGTH:  # the bound that a gateway puts on every request, not a wish
        limit = PARAMETERS["num_predict"]
    values["n_predict"] = limit if limit > 0 else -1
    if values["repeat_last_n"] < 0:
        values["repeat_last_n"] = CONTEXT_LENGTH
    return values


def grammar(format_: Any) -> dict[str, Any]:
    """Return llama.cpp's parameters for Ollama's `format`: "json", a JSON schema, or nothing.

    Raises:
        EngineError: it is anything else: 500, as in Ollama.
    """
    match format_:
        case None | "":
            return {}
        case "json":
            return grammar({"type": "object"})
        case dict():
            return {"json_schema": {**format_, "x-guidance": _ONE_LINE}}
    quoted = msgspec.json.encode(msgspec.json.encode(format_).decode()).decode()
    raise EngineError(f'invalid format: {quoted}; expected "json" or a valid JSON Schema object')


def _typed(name: str, value: Any) -> Any:
    match _DEFAULTS[name], value:
        case _, bool():
            pass
        case float(), float() | int():
            return float(value)
        case int(), float() | int():
            return max(-_INT32, min(int(value), _INT32 - 1))
        case list(), list():
            if all(isinstance(item, str) for item in value):
                return value
            raise EngineError(f'option "{name}" must be of an array of strings')
    raise EngineError(f'option "{name}" must be of type {_GO_TYPES[type(_DEFAULTS[name])]}')
