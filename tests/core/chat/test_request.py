import base64
import tracemalloc

import msgspec
import pytest
from msgspec import UNSET

from core.chat.request import _charset, parse_chat_request
from core.contract.errors import BadRequest
from core.contract.schemas import ChatRequest


def parse(text: str, charset: str = "utf-8-sig") -> ChatRequest:
    return parse_chat_request(text.encode("utf-8"), charset)


def test_a_message_alone_gets_all_defaults() -> None:
    chat = parse('{"message": "안녕하세요!"}')
    assert chat.message == "안녕하세요!"
    assert chat.model is UNSET
    assert chat.stream is False
    assert chat.context is None
    assert chat.messages is UNSET
    assert chat.think is False


def test_unknown_fields_are_ignored_and_a_bom_is_accepted() -> None:
    assert parse('\ufeff{"message": "hi", "keep_alive": 0, "raw": true}').message == "hi"


def test_every_field_is_read() -> None:
    image = base64.b64encode(b"png").decode()
    chat = parse(
        '{"message": "hi", "model": "hf.co/a/b-GGUF:Q4_K_M", "stream": true,'
        '"context": [0, 2147483647], "system": "s", "format": {"type": "object"}, "think": "high",'
        '"options": {"temperature": 0, "stop": ["a"], "seed": -1, "num_predict": -1},'
        '"images": ["' + image + '"]}'
    )
    assert chat.context == [0, 2147483647]
    assert chat.options is not UNSET
    assert chat.options.temperature == 0
    assert chat.format == {"type": "object"}
    assert (chat.think, chat.images) == ("high", [image])


@pytest.mark.parametrize(
    ("body", "start"),
    [
        ("{}", "message: is required"),
        ("[]", "The body: expected an object, got an array"),
        ('"hi"', "The body: expected an object"),
        ("null", "The body: expected an object"),
        ("", "The body is not valid JSON"),
        ("not json", "The body is not valid JSON"),
        ('{"message": "a"} x', "The body is not valid JSON"),
        ("{'message': 'a'}", "The body is not valid JSON"),
        ('{"message": "\\ud800"}', "The body is not valid JSON"),
        ('{"message": "a", "x": NaN}', "The body is not valid JSON"),
        ('{"message": 1}', "message: expected a string, got an integer"),
        ('{"message": null}', "message: expected a string, got null"),
        ('{"message": ""}', "message: must not be empty"),
        ('{"message": " \\t\\u3000\\n"}', "message: must not be empty"),
        ('{"message": "a", "model": ""}', "model: "),
        ('{"message": "a", "model": null}', "model: expected a string, got null"),
        ('{"message": "a", "model": "a b"}', "model: "),
        ('{"message": "a", "model": "x-cloud\\n"}', "model: "),
        ('{"message": "a", "stream": "true"}', "stream: expected a boolean, got a string"),
        ('{"message": "a", "stream": 1}', "stream: expected a boolean"),
        ('{"message": "a", "context": "1"}', "context: expected an array"),
        ('{"message": "a", "context": [true]}', "context[0]: expected an integer, got a boolean"),
        ('{"message": "a", "context": [1, 1.5]}', "context[1]: expected an integer, got a number"),
        ('{"message": "a", "context": [-1]}', "context[0]: expected an integer >= 0"),
        ('{"message": "a", "context": [2147483648]}', "context[0]: expected an integer <= "),
        (
            '{"message": "a", "context": [1180591620717411303424]}',
            "context[0]: expected an integer",
        ),
        ('{"message": "a", "system": 1}', "system: expected a string"),
        ('{"message": "a", "options": []}', "options: expected an object, got an array"),
        ('{"message": "a", "options": {"num_ctx": 1}}', "options: object contains unknown field"),
        ('{"message": "a", "options": {"num_gpu": 1}}', "options: object contains unknown field"),
        (
            '{"message": "a", "options": {"temperature": "hot"}}',
            "options.temperature: expected a num",
        ),
        (
            '{"message": "a", "options": {"temperature": 1e999}}',
            "options.temperature: number out of",
        ),
        (
            '{"message": "a", "options": {"temperature": -1}}',
            "options.temperature: expected a number",
        ),
        (
            '{"message": "a", "options": {"stop": "x"}}',
            "options.stop: expected an array, got a string",
        ),
        (
            '{"message": "a", "options": {"num_predict": 2.7}}',
            "options.num_predict: expected an integer",
        ),
        (
            '{"message": "a", "options": {"num_predict": true}}',
            "options.num_predict: expected an int",
        ),
        ('{"message": "a", "format": "xml"}', "format: "),
        ('{"message": "a", "format": 1}', "format: expected a string or an object, got an integer"),
        ('{"message": "a", "think": "banana"}', "think: "),
        ('{"message": "a", "think": 1}', "think: expected a boolean or a string, got an integer"),
        ('{"message": "a", "images": ["!!"]}', "images[0]: is not base64"),
        ('{"message": "a", "images": ["data:image/png;base64,AAAA"]}', "images[0]: is not base64"),
        ('{"message": "a", "images": [""]}', "images[0]: is not base64"),
        ('{"message": "a", "images": "AAAA"}', "images: expected an array"),
        ('{"message": "a", "images": [1]}', "images[0]: expected a string"),
    ],
)
def test_an_invalid_body_is_refused_naming_the_field(body: str, start: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(body)
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize("field", ["x", "format", "options", "message"])
def test_depth_bombs_are_refused(field: str) -> None:
    bomb = '{"a":' * 20_000 + "1" + "}" * 20_000
    with pytest.raises(BadRequest):
        parse(f'{{"message": "a", "{field}": {bomb}}}')


def test_a_schemas_repetition_counts_are_bounded() -> None:
    def request(*counts: object) -> str:
        parts = [{"type": "array", "minItems": count, "maxLength": 10**9} for count in counts]
        return msgspec.json.encode({"message": "a", "format": {"anyOf": parts}}).decode()

    assert parse(request(50_000, 50_000, "many", -(10**9))).format
    with pytest.raises(BadRequest, match=r"^format: minItems, .* total more than 100000$"):
        parse(request(50_000, 50_000, -(10**9), 1))
    for count in ("1e308", "9" * 400):
        with pytest.raises(BadRequest, match=r"^format: "):
            parse(f'{{"message": "a", "format": {{"minItems": {count}}}}}')


def test_an_error_does_not_echo_the_whole_input() -> None:
    with pytest.raises(BadRequest, match=r"^think: ") as caught:
        parse(msgspec.json.encode({"message": "a", "think": " - at `$.x`" * 1000}).decode())
    assert len(str(caught.value)) < 300


def test_a_schema_nested_deeper_than_ollama_can_take_is_refused() -> None:
    def nested(depth: int) -> str:
        schema: object = {}
        for _ in range(depth):
            schema = {"items": schema}
        return msgspec.json.encode({"message": "a", "format": schema}).decode()

    parse(nested(63))
    with pytest.raises(BadRequest, match="nested deeper"):
        parse(nested(65))


@pytest.mark.parametrize(
    ("body", "charset"),
    [
        (b'{"message": "\xff\xfe"}', "utf-8-sig"),
        (b'{"message": "a", "unknown": "\xff"}', "utf-8-sig"),
        ('{"message": "안녕"}'.encode("cp949"), "utf-8-sig"),
        (b'{"message": "\xff\xff"}', "cp949"),
    ],
)
def test_text_invalid_in_its_charset_is_refused(body: bytes, charset: str) -> None:
    with pytest.raises(BadRequest, match="charset=utf-8"):
        parse_chat_request(body, charset)


def test_invented_charsets_are_not_remembered() -> None:
    """Python's table of codecs keeps each name that it is asked for, for ever."""
    tracemalloc.start()
    try:
        for round_ in range(2):
            before, _ = tracemalloc.get_traced_memory()
            for number in range(2000):
                name = f"{round_}-{number}-".ljust(1000, "x")
                with pytest.raises(BadRequest, match="charset"):
                    _charset(f"application/json; charset={name}")
            kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert kept < 200_000
