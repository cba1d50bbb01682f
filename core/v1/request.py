"""Reads and rewrites the body of a relayed request; what is not ours passes through untouched."""

import asyncio
import re

import msgspec
from msgspec import Raw

from core.chat.body import QUICK_BODY_BYTES, json_problem
from core.chat.keywords import Work
from core.chat.schema import MAX_FORMAT_BYTES, checked_format
from core.contract.errors import BadRequest
from core.v1.apis import EMBEDDINGS, Api
from core.v1.fields import KnownFields, known_fields
from core.v1.images import Pace, decoded, has_images, starts

_Fields = dict[str, Raw]

MAX_FIELDS = 256
"""In a body: the compatible APIs know some forty."""
_DROPPED = {"keep_alive", "options"}
"""Ollama's own, which would reload or pin a model for everyone."""
_FORMATS = ("response_format", "text", "format", "output_format", "output_config")
"""Where the compatible APIs take a JSON schema, which Ollama turns into a grammar."""
_CONTENTS = ("messages", "input", "prompt", "tools")
_OURS = {*KnownFields.__struct_fields__, *_FORMATS, *_DROPPED, *_CONTENTS}
"""The fields that this server acts on."""
_DEVELOPER, _SYSTEM, _NULL = Raw(b'"developer"'), Raw(b'"system"'), Raw(b"null")
_TOKENS = re.compile(rb"\[\s*[\[0-9]")
"""How a list of token IDs, or one of such lists, begins."""
_FORMAT_LEVELS = 2
"""How many objects may enclose a schema within its field: more than any API uses."""


class RelayRequest:
    """A request that has been checked as far as this server can."""

    def __init__(self, fields: _Fields, asked: KnownFields, api: Api, *, has_images: bool) -> None:
        self._fields = fields
        self.body = b""
        """What to send to Ollama, once it is sealed."""
        self.model = asked.model or ""
        """Empty where the request names none."""
        self.stream = bool(api.ends and asked.stream)
        options = asked.stream_options
        self.wants_usage = not api.has_usage_option or bool(options and options.include_usage)
        """Whether the client asked a stream for its usage."""
        self.has_images = has_images

    def seal(self) -> None:
        """Keep only what to send to Ollama, as `body`: `model` is final from now on."""
        encode = msgspec.json.encode
        fields = {**self._fields, "model": Raw(encode(self.model))}
        body: list[bytes | memoryview] = []
        for name, raw in fields.items():
            body += b"," if body else b"{", encode(name), b":", memoryview(raw)
        # Joined, because msgspec's buffer would be larger, and leave holes in the heap.
        self.body = b"".join([*body, b"}"])
        self._fields = {}


async def parse(api: Api, body: bytes | bytearray, max_predict: int) -> RelayRequest:
    """Check `body`, which is UTF-8, and bound its answer to `max_predict` tokens.

    Raises:
        BadRequest: it is invalid; the text names the field.
    """
    try:
        fields = msgspec.json.decode(body, type=_Fields)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"The body must be a JSON object ({json_problem(error, body)})") from None
    if len(fields) > MAX_FIELDS:
        raise BadRequest(f"The body has more than {MAX_FIELDS} fields")
    is_large = len(body) > QUICK_BODY_BYTES
    if is_large:
        await asyncio.sleep(0)  # let other clients have their turn
    fields = _under_our_names(fields)
    asked = known_fields(fields)
    work = Work()
    for name in _FORMATS:
        if name in fields:
            fields[name] = await asyncio.to_thread(_checked_formats, name, fields[name], work)
    _adapt(api, fields, asked)
    if api.limits:
        _bound_tokens(fields, asked, api.limits, max_predict)
    if is_large:
        await asyncio.sleep(0)
    request = RelayRequest(fields, asked, api, has_images=await has_images(fields))
    if b'"developer"' in body:  # only now, as the messages are no more than they may be
        await _rename_developers(fields)
    if request.stream and api.has_usage_option:
        fields["stream_options"] = Raw(b'{"include_usage":true}')
    return request


def _under_our_names(fields: _Fields) -> _Fields:
    """Return the fields; those that this server acts on, under their usual names.

    Go matches names whatever their case (encoding/json), so `MODEL` would override `model`.
    """
    ours: _Fields = {}
    for name, value in fields.items():
        known = name.casefold() if name.casefold() in _OURS else name
        if known in ours:
            raise BadRequest(f"{known}: is given twice, in names that differ only in case")
        if known not in _DROPPED:
            ours[known] = value
    return ours


def _bound_tokens(fields: _Fields, asked: KnownFields, names: tuple[str, ...], most: int) -> None:
    """Replace every limit on the answer's tokens with the one that Ollama obeys."""
    for name in names:
        fields.pop(name, None)
    limit = min(most, *(getattr(asked, name) or most for name in names))
    fields[names[-1]] = Raw(b"%d" % limit)


def _adapt(api: Api, fields: _Fields, asked: KnownFields) -> None:
    """Put what Ollama does not understand in its terms, or refuse it with advice."""
    choice = asked.tool_choice  # a text in OpenAI's API, an object in Anthropic's
    if (choice.get("type") if isinstance(choice, dict) else choice) == "none":  # Ollama ignores it
        fields.pop("tools", None)
    if starts(prompt := fields.get("prompt", _NULL), b"["):  # as LangChain sends it
        prompts = decoded("prompt", prompt, list[Raw])
        if len(prompts) != 1 or not starts(prompts[0], b'"'):
            raise BadRequest("prompt: must be one text. Send one request for each")
        fields["prompt"] = prompts[0]
    if api is EMBEDDINGS and _TOKENS.match(fields.get("input", _NULL)):
        raise BadRequest(
            "input: token IDs are not supported. Send text; in LangChain, set "
            "check_embedding_ctx_length=False"
        )


async def _rename_developers(fields: _Fields) -> None:
    """Replace OpenAI's newer name for `system`, which most models' templates would leave out."""
    pace = Pace()
    for name in fields.keys() & {"messages", "input"}:
        if not starts(fields[name], b"["):
            continue
        messages = decoded(name, fields[name], list[Raw])
        for index, raw in enumerate(messages):
            if pace.is_step(raw):
                await asyncio.sleep(0)
            if starts(raw, b"{"):
                message = decoded(name, raw, _Fields)
                if message.get("role") == _DEVELOPER:
                    messages[index] = Raw(msgspec.json.encode({**message, "role": _SYSTEM}))
        fields[name] = Raw(msgspec.json.encode(messages))


def _checked_formats(name: str, raw: Raw, work: Work, levels: int = _FORMAT_LEVELS) -> Raw:
    """Return the value of `name` with every JSON schema inside as it was checked."""
    if memoryview(raw).nbytes > MAX_FORMAT_BYTES:
        raise BadRequest(f"{name}: is over {MAX_FORMAT_BYTES} bytes of JSON")
    if not starts(raw, b"{"):
        return raw
    parts = decoded(name, raw, _Fields)
    for key, value in parts.items():
        if key.casefold() == "schema" and not starts(value, b"null"):
            try:
                parts[key] = checked_format(value, work)
            except msgspec.MsgspecError:
                raise BadRequest(
                    f"{name}.{key}: must be a JSON schema, which is an object"
                ) from None
        elif key.casefold() in {"json_schema", "format"}:
            if not levels:
                raise BadRequest(f"{name}: is nested too deeply")
            parts[key] = _checked_formats(name, value, work, levels - 1)
    return Raw(msgspec.json.encode(parts))
