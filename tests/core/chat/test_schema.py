from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.chat.keywords import Work
from core.chat.schema import checked_format
from core.contract.errors import BadRequest

CORPUS = Path(__file__).with_name("schemas.ndjson")
"""Ordinary schemas: OpenAI's and Ollama's examples, json-schema.org's, and what pydantic writes."""
ORDINARY = [msgspec.json.decode(line) for line in CORPUS.read_bytes().splitlines()]


def check(schema: Any) -> Any:
    return msgspec.json.decode(checked_format(msgspec.Raw(msgspec.json.encode(schema)), Work()))


def refusal(schema: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        check(schema)
    return str(caught.value)


@pytest.mark.parametrize("case", ORDINARY, ids=lambda case: str(case["name"]))
def test_ordinary_schemas_pass(case: dict[str, Any]) -> None:
    sent = check(case["schema"])
    assert sent == case["schema"] or "pattern" in str(sent)
    assert [*sent] == [*case["schema"]], "the order of properties is the order of the answer"


def test_there_are_fifty_ordinary_schemas() -> None:
    assert len({case["name"] for case in ORDINARY}) >= 50


@pytest.mark.parametrize("name", ["minLength", "maxLength", "minItems", "maxItems", "maxContains"])
def test_counts_end_at_what_llama_cpp_takes(name: str) -> None:
    assert check({"type": "string", name: 2000}) == {"type": "string", name: 2000}
    for count in (2001, -1, 1.5, "1", None, True):
        problem = refusal({"type": "string", name: count})
        assert problem == f"format.{name}: must be an integer between 0 and 2000"


def test_the_place_in_the_schema_is_named() -> None:
    schema = {"properties": {"a": {"items": {"anyOf": [{}, {"maxLength": 9999}]}}}}
    assert refusal(schema).startswith("format.properties.a.items.anyOf[1].maxLength: ")
    assert refusal({"$defs": {"x": {"type": "text"}}}).startswith("format.$defs.x.type: ")
    assert len(refusal({"properties": {"x" * 256: {"items": {"type": "text"}}}})) < 500


def test_what_ollama_reads_is_what_was_checked() -> None:
    twice = b'{"type":"string","maxLength":9999,"maxLength":5}'
    assert bytes(checked_format(msgspec.Raw(twice), Work())) == b'{"type":"string","maxLength":5}'


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "text"}, "format.type: must be one of"),
        ({"type": ["string", "string"]}, "format.type: must be one of"),
        ({"type": None}, "format.type: must be one of"),
        ({"items": True}, "format.items: must be a schema"),
        ({"properties": []}, "format.properties: must be an object"),
        ({"$defs": 1}, "format.$defs: must be an object"),
        ({"required": "a"}, "format.required: must be an array of names"),
        ({"format": 1}, "format.format: must be a string"),
        ({"pattern": 1}, "format.pattern: must be a string"),
        ({"minimum": "1"}, "format.minimum: must be a number"),
        ({"maximum": 1e300}, "format.maximum: must be a number"),
        ({"exclusiveMinimum": True}, "format.exclusiveMinimum: must be a number"),
        ({"minimum": 2.5, "maximum": 2.4}, "format.minimum: 2.5 is above the maximum"),
        ({"anyOf": [{}] * 1001}, "format.anyOf: must be an array of 1 to 1000"),
        ({"enum": list(range(1001))}, "format.enum: must be an array of 1 to 1000"),
        ({"const": {"a": 'b"'}}, 'format: has a value with a "'),
        ({"properties": {'a"': {}}}, 'format.properties: has a name with a "'),
        ({"properties": {"a]": {}}, "additionalProperties": {}}, "format.additionalProperties"),
        ({"properties": {"x" * 257: {}}}, "format: a name is longer than 256"),
        ({"$ref": "https://example.com/x"}, "format.$ref: must refer to a part of this schema"),
        ({"$ref": "#/$defs/x"}, "format.$ref: #/$defs/x does not exist"),
        ({"default": {"$ref": 1}}, "format.$ref: must refer"),
        ({"x": [{"$ref": f"#/x/{n}/y", "y": {}} for n in range(257)]}, "format: it refers to more"),
        (
            {"allOf": [{"properties": {f"p{a}{n}": {} for n in range(200)}} for a in "ab"]},
            "format.allOf: has more than 256 properties",
        ),
        (
            {"properties": {f"p{n}": {"properties": {f"q{m}": {} for m in range(20)}}
                            for n in range(200)}},
            "format: the schema grows to over 3000 parts",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_refused(schema: Any, problem: str) -> None:
    assert refusal(schema).startswith(problem)


def test_a_format_is_bounded_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    big = msgspec.Raw(b'{"enum":[' + b"{}," * 30_000 + b"{}]}")
    monkeypatch.setattr(msgspec.json, "decode", lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(BadRequest, match="over 65536 bytes"):
        checked_format(big, Work())


def test_depth_is_bounded_wherever_it_is() -> None:
    def nested(depth: int, name: str) -> Any:
        schema: Any = {}
        for _ in range(depth):
            schema = {name: schema}
        return schema

    for name in ("items", "x", "not"):
        check(nested(63, name))
        assert refusal(nested(64, name)).endswith("nested deeper than 64 levels")
    bomb = b'{"a":' * 5000 + b"1" + b"}" * 5000
    with pytest.raises(BadRequest, match="nested deeper"):
        checked_format(msgspec.Raw(bomb), Work())


def test_a_schema_may_refer_to_itself_behind_a_property_or_an_item() -> None:
    for schema in (
        {"properties": {"children": {"items": {"$ref": "#"}}}},
        {"$defs": {"n": {"anyOf": [{"items": {"$ref": "#/$defs/n"}}, {"type": "null"}]}}, "x": 1},
        {"$defs": {"a/b~c": {"type": "null"}}, "$ref": "#/$defs/a~1b~0c"},
        {"prefixItems": [{"type": "null"}, {"$ref": "#/prefixItems/0"}]},
    ):
        assert check(schema) == schema
