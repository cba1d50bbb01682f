"""Reads and rewrites the body of a relayed request; what is not ours passes through untouched."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from core.chat.schema import MAX_FORMAT_BYTES, checked_format
from core.contract.errors import BadRequest
from core.contract.schemas import ModelName
from core.v1.apis import Api

_Fields = dict[str, Raw]

_DROPPED = {"keep_alive", "options"}
"""Ollama's own, which would reload or pin a model for everybody."""
_OURS = {
    *("model", "stream", "n", "stream_options", "messages", "input", "keep_alive", "options"),
    *("max_tokens", "max_completion_tokens", "max_output_tokens"),
    *("response_format", "text", "format", "output_format", "output_config"),
}
"""The fields that this server acts on."""
_FORMATS = ("response_format", "text", "format", "output_format", "output_config")
"""Where the compatible APIs take a JSON schema, which Ollama turns into a grammar."""
MAX_PARTS = 100_000
"""How many objects the messages of a request may hold: each costs time on the event loop."""
MAX_DEPTH = 8


class RelayRequest(msgspec.Struct):
    """A request that has been checked as far as this server can."""

    model: str
    """Empty where the request names none."""
    stream: bool
    wants_usage: bool
    """Whether the client asked a stream for its usage."""
    has_images: bool
    fields: _Fields

    @property
    def body(self) -> bytes:
        """What to send to Ollama."""
        return msgspec.json.encode({**self.fields, "model": self.model})


def parse(api: Api, body: bytes | bytearray, max_predict: int) -> RelayRequest:
    """Check `body`, which is UTF-8, and bound its answer to `max_predict` tokens.

    Raises:
        BadRequest: it is invalid; the text names the field.
    """
    fields = _decode(body)
    model = _value(fields, "model", ModelName | None) or ""
    stream = bool(api.ends) and bool(_value(fields, "stream", bool | None))
    if (_value(fields, "n", int | None) or 1) > 1:
        raise BadRequest("n: only 1 is supported. Send one request for each answer")
    options = _value(fields, "stream_options", dict[str, Any] | None) or {}
    for name in _FORMATS:
        if name in fields:
            fields[name] = _checked_formats(name, fields[name])
    if api.limits:
        _bound_tokens(fields, api.limits, max_predict)
    if stream and api.has_usage_option:
        fields["stream_options"] = Raw(b'{"include_usage":true}')
    return RelayRequest(
        model=model,
        stream=stream,
        wants_usage=options.get("include_usage") is True or not api.has_usage_option,
        has_images=_has_images(fields),
        fields=fields,
    )


def _decode(body: bytes | bytearray) -> _Fields:
    try:
        fields = msgspec.json.decode(body, type=_Fields)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadRequest(f"The body must be a JSON object ({error})") from None
    return _under_our_names(fields)


def _under_our_names(fields: _Fields) -> _Fields:
    """Return the fields; those that this server acts on, under their usual names.

    Go matches names whatever their case (encoding/json), so `MODEL` would override `model`.
    """
    ours: _Fields = {}
    for name, value in fields.items():
        known = name.casefold() if name.casefold() in _OURS else name
        if known in ours:
            raise BadRequest(f"{known}: is given twice, in names that differ in case only")
        if known not in _DROPPED:
            ours[known] = value
    return ours


def _value(fields: Mapping[str, Raw], name: str, type_: Any) -> Any:
    return _decoded(name, fields[name], type_) if name in fields else None


def _decoded(name: str, raw: Raw, type_: Any) -> Any:
    try:
        return msgspec.json.decode(raw, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"{name}: {error}") from None


def _bound_tokens(fields: _Fields, names: tuple[str, ...], max_predict: int) -> None:
    """Replace every limit on the answer's tokens by the one that Ollama obeys."""
    limit = max_predict
    for name in names:
        wanted = _value(fields, name, Annotated[int, Meta(ge=1)] | None)
        fields.pop(name, None)
        limit = min(limit, wanted or limit)
    fields[names[-1]] = Raw(b"%d" % limit)


def _checked_formats(name: str, raw: Raw) -> Raw:
    """Return the value of `name` with every JSON schema inside as it was checked."""
    if memoryview(raw).nbytes > MAX_FORMAT_BYTES:
        raise BadRequest(f"{name}: is over {MAX_FORMAT_BYTES} bytes of JSON")
    if not _starts(raw, b"{"):
        return raw
    parts = _decoded(name, raw, _Fields)
    for key, value in parts.items():
        if key.casefold() == "schema" and _starts(value, b"{"):
            parts[key] = checked_format(value)
        elif key.casefold() in {"json_schema", "format"}:
            parts[key] = _checked_formats(name, value)
    return Raw(msgspec.json.encode(parts))


def _has_images(fields: _Fields) -> bool:
    """Return whether the request carries images.

    Raises:
        BadRequest: one is a URL, which Ollama would have to fetch.
    """
    found = False
    for name in ("messages", "input"):
        raw = fields.get(name)
        if raw is not None and _starts(raw, b"[", b"{"):
            if bytes(raw).count(b"{") > MAX_PARTS:
                raise BadRequest(f"{name}: has more than {MAX_PARTS} parts")
            for image in _images(name, raw):
                found |= _is_image(name, image)
    return found


def _images(name: str, raw: Raw, depth: int = 0) -> Iterator[Raw]:
    """Yield the image fields in `raw`: a message, a part of one, or a list of them."""
    if depth > MAX_DEPTH:
        raise BadRequest(f"{name}: is nested too deeply")
    if _starts(raw, b"["):
        for entry in _decoded(name, raw, list[Raw]):
            yield from _images(name, entry, depth + 1)
    elif _starts(raw, b"{"):
        for key, value in _decoded(name, raw, _Fields).items():
            if key.casefold() in {"image_url", "source"}:
                yield value
            elif key.casefold() in {"content", "output"}:
                yield from _images(name, value, depth + 1)


def _is_image(name: str, raw: Raw) -> bool:
    """Return whether the value of an `image_url` or a `source` is an image."""
    if _starts(raw, b"{"):
        source = _decoded(name, raw, _Fields)
        urls = [value for key, value in source.items() if key.casefold() == "url"]
        if not urls:
            return "data" in source
        raw = urls[-1]
    if not _starts(raw, b'"data:'):
        raise BadRequest(f"{name}: image URLs are not supported. Send the image as a data: URL")
    return True


def _starts(raw: Raw, *beginnings: bytes) -> bool:
    return any(memoryview(raw)[: len(start)] == start for start in beginnings)
