"""Reads a struct of settings from environment variables, and explains invalid values."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

_T = TypeVar("_T", bound=msgspec.Struct)


class SettingsError(Exception):
    """An environment variable has an invalid value."""


def read(type_: type[_T], environ: Mapping[str, str]) -> _T:
    """Return a `type_` whose fields are the variables of the same names in capitals.

    An absent or empty variable keeps its default. Lists are comma-separated, objects are JSON.

    Raises:
        SettingsError: a value is invalid. The text names the variable and what it accepts, but
            never the value, which may be a secret.
    """
    defaults = type_()
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(type_):
        name = field.name.upper()
        if text := environ.get(name, "").strip():
            try:
                value = _parsed(text, getattr(defaults, field.name))
                values[field.name] = msgspec.convert(
                    value, field.type, strict=False, dec_hook=_from_text
                )
            except msgspec.DecodeError:
                raise SettingsError(f"{name} is invalid: {_accepted(field)}") from None
    return type_(**values)


def schema_of(field: msgspec.structs.FieldInfo) -> dict[str, Any]:
    """Return the JSON schema of a setting; a secret is `writeOnly`."""
    return msgspec.json.schema(field.type, schema_hook=lambda _: {"type": "string"})


def _parsed(text: str, default: object) -> Any:
    if isinstance(default, dict):
        return msgspec.json.decode(text)
    return [item.strip() for item in text.split(",")] if isinstance(default, tuple) else text


def _from_text(type_: type, text: str) -> Any:
    return type_(text)


def _accepted(field: msgspec.structs.FieldInfo) -> str:
    schema = schema_of(field)
    limits = {
        "minimum": "at least",
        "exclusiveMinimum": "more than",
        "maximum": "at most",
        "minLength": "with a length of at least",
    }
    if "enum" in schema:
        what = " or ".join(schema["enum"])
    else:
        what = schema.get("format") or schema["type"].replace("object", "a JSON object")
    words = [what, *(f"{word} {schema[key]}" for key, word in limits.items() if key in schema)]
    return f"expected {', '.join(words)}: {schema['description']}"
