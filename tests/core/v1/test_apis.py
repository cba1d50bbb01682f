import asyncio
from typing import Any

import msgspec
import pytest

from core.contract.errors import BadRequest
from core.v1.apis import CHAT_COMPLETIONS, MESSAGES, RESPONSES, Api
from core.v1.request import parse

CRASH = {"type": "string", "maxLength": 2001}
PLAIN = {"type": "object", "properties": {"a": {"type": "string"}}}


def places(schema: Any) -> list[tuple[Api, dict[str, Any]]]:
    """Return each way to pass a compatible API a JSON schema that Go reads."""
    named = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    plain = {"type": "json_schema", "name": "a", "schema": schema}
    return [
        (CHAT_COMPLETIONS, {"response_format": named}),
        (CHAT_COMPLETIONS, {"Response_Format": {"JSON_schema": {"SCHEMA": schema}}}),
        (RESPONSES, {"text": {"format": plain}}),
        (MESSAGES, {"output_format": plain}),
        (MESSAGES, {"output_config": {"format": plain}}),
    ]


def sent(api: Api, fields: dict[str, Any]) -> dict[str, Any]:
    body = msgspec.json.encode({"model": "a", "messages": [], **fields})
    request = asyncio.run(parse(api, body, 100))
    request.seal()
    return dict(msgspec.json.decode(request.body))


@pytest.mark.parametrize(("api", "fields"), places(CRASH))
def test_a_harmful_schema_is_refused(api: Api, fields: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=r"^format.maxLength: must be an integer between 0"):
        sent(api, fields)


@pytest.mark.parametrize(("api", "fields"), places(PLAIN))
def test_an_ordinary_schema_passes(api: Api, fields: dict[str, Any]) -> None:
    (value,) = fields.values()
    assert value in sent(api, fields).values()


def test_other_values_than_schemas_pass() -> None:
    for value in ({"type": "json_object"}, {"type": "text"}, None, "json", 1):
        assert sent(CHAT_COMPLETIONS, {"response_format": value})["response_format"] == value


def test_a_large_format_is_not_decoded() -> None:
    with pytest.raises(BadRequest, match=r"^response_format: is over 65536 bytes"):
        sent(CHAT_COMPLETIONS, {"response_format": {"schema": {"enum": [{}] * 40_000}}})
