"""The settings, each an environment variable of the same name in capitals."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

import msgspec
from msgspec import Meta

API_VERSION = "1.0.0"
"""The version of the API contract, not of this package."""

_DAY_S = 86_400
_URL = Meta(
    pattern=r"^https?://(\[[0-9a-fA-F:.]+\]|[^/@:\s?#\[\]]+)(:\d{1,5})?(/[^\s?#]*)?$",
    extra_json_schema={"format": "an http:// or https:// URL without user, query or fragment"},
)
_HEADER_VALUE = Annotated[str, Meta(pattern=r"^[\x20-\x7e]*$")]
_JSON_VALUED = {"ollama_headers"}


class SettingsError(Exception):
    """An environment variable has a value that cannot be used."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting of the system, checked once when it is read."""

    host: Annotated[str, Meta(description="address to listen on")] = "127.0.0.1"
    port: Annotated[
        int, Meta(ge=0, le=65535, description="port of the API; 0 takes a free one")
    ] = 5000
    request_timeout_s: Annotated[
        float,
        Meta(gt=0, le=_DAY_S, description="seconds from a request's arrival to its last byte"),
    ] = 300
    max_body_bytes: Annotated[int, Meta(ge=1, description="largest request body, in bytes")] = (
        20 * 2**20
    )
    stream_heartbeat_s: Annotated[
        float,
        Meta(
            ge=0,
            le=_DAY_S,
            description="silent seconds after which a stream sends an empty token; 0 is never",
        ),
    ] = 0
    default_model: Annotated[str, Meta(description="model of a request that names none")] = (
        "llama3.1:70b"
    )
    max_predict: Annotated[
        int, Meta(ge=1, description="most tokens an answer may have (caps num_predict)")
    ] = 8192
    max_context_tokens: Annotated[
        int, Meta(ge=1, description="most token ids a request's context may have")
    ] = 131_072
    allow_cloud_models: Annotated[
        bool, Meta(description="whether models that run in Ollama's cloud may be listed and used")
    ] = False
    ollama_base_url: Annotated[
        str, _URL, Meta(description="where Ollama, or the way to it, is")
    ] = "http://127.0.0.1:11434"
    ollama_connect_timeout_s: Annotated[
        float, Meta(gt=0, le=_DAY_S, description="seconds that connecting to Ollama may take")
    ] = 5
    ollama_headers: Annotated[
        dict[str, _HEADER_VALUE],
        Meta(description="JSON object of headers that a tunnel to Ollama wants"),
    ] = {}
    ollama_ca_file: Annotated[
        str, Meta(description="PEM file of the authority that signed Ollama's certificate")
    ] = ""
    ollama_client_cert: Annotated[
        str, Meta(description="PEM file of the client certificate to show to Ollama")
    ] = ""
    ollama_client_key: Annotated[
        str, Meta(description="PEM file of that certificate's key, if it is a file of its own")
    ] = ""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings; a variable that is absent or empty keeps its default.

        Raises:
            SettingsError: a value is unusable. The text names the variable and what it accepts,
                and never repeats the value, which may be a secret.
        """
        values: dict[str, Any] = {}
        for field in msgspec.structs.fields(cls):
            name = field.name.upper()
            if text := environ.get(name, "").strip():
                try:
                    value = msgspec.json.decode(text) if field.name in _JSON_VALUED else text
                    values[field.name] = msgspec.convert(value, field.type, strict=False)
                except msgspec.DecodeError:
                    raise SettingsError(f"{name} is unusable: {_accepted(field)}") from None
        return cls(**values)


def _accepted(field: msgspec.structs.FieldInfo) -> str:
    """Say in words what a setting is for and which values it takes."""
    schema = msgspec.json.schema(field.type)
    limits = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most"}
    words = [
        schema.get(
            "format", f"a JSON {schema['type']}" if schema["type"] == "object" else schema["type"]
        )
    ]
    words += [f"{word} {schema[key]}" for key, word in limits.items() if key in schema]
    return f"expected {', '.join(words)}: {schema['description']}"
