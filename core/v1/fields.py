"""The fields of a relayed request that this server acts on, with bounds that Ollama lacks."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from core.chat.large import MAX_FIELD_BYTES
from core.chat.request import MIN_TEMPERATURE, in_json_terms
from core.contract.errors import BadRequest
from core.contract.schemas import MAX_VOCABULARY, ModelName, Penalty, Probability, StopWord

MAX_LOGPROBS = 20
"""Alternatives for each token, OpenAI's and Ollama's own limit."""
MAX_DIMENSIONS = 65_536
"""Of an embedding: more than any model has."""

_Tokens = Annotated[int, Meta(ge=1)]
_Seed = Annotated[int, Meta(ge=-(2**31), lt=2**31)]
_StopWords = Annotated[list[StopWord], Meta(max_length=64)]
_Logprobs = Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)]


class _StreamOptions(Struct):
    include_usage: bool | None = None


class KnownFields(Struct):
    """The fields that are read; the bounds are those of `Options` in /api/chat."""

    model: ModelName | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: int | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    max_output_tokens: _Tokens | None = None
    temperature: Annotated[float, Meta(ge=0, le=10)] | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Meta(ge=0, le=MAX_VOCABULARY)] | None = None
    seed: _Seed | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    stop: StopWord | _StopWords | None = None
    stop_sequences: _StopWords | None = None
    logprobs: bool | _Logprobs | None = None
    top_logprobs: _Logprobs | None = None
    dimensions: Annotated[int, Meta(ge=1, le=MAX_DIMENSIONS)] | None = None


_decode = msgspec.json.Decoder(KnownFields).decode


def known_fields(fields: dict[str, Raw]) -> KnownFields:
    """Return those of `fields` that this server acts on.

    Raises:
        BadRequest: a field is invalid or out of its bounds; the text names it.
    """
    known: dict[str, Any] = {}
    for name in KnownFields.__struct_fields__:
        if name in fields:
            known[name] = fields[name]
            if memoryview(fields[name]).nbytes > MAX_FIELD_BYTES:
                raise BadRequest(f"{name}: is over {MAX_FIELD_BYTES} bytes of JSON")
    try:
        values = _decode(msgspec.json.encode(known))
    except msgspec.ValidationError as error:
        raise BadRequest(in_json_terms(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"The body is not valid JSON ({error})") from None
    if (values.n or 1) > 1:
        raise BadRequest("n: only 1 is supported. Send one request for each answer")
    for name in ("previous_response_id", "conversation"):
        if getattr(values, name):  # Ollama ignores it, and so would forget the conversation
            raise BadRequest(
                f"{name}: nothing is stored here. Send the whole conversation as input"
            )
    if values.temperature and values.temperature < MIN_TEMPERATURE:
        raise BadRequest(f"temperature: must be 0, or at least {MIN_TEMPERATURE}")
    return values
