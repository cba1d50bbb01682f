import base64
import tracemalloc

import msgspec
import pytest
from msgspec import UNSET

from core.chat import request
from core.chat.images import PIECE_BYTES
from core.chat.request import charset_of, parse_chat_request
from core.contract.errors import BadRequest
from core.contract.schemas import ChatRequest

LIMIT = 2**20


async def parse(text: str) -> ChatRequest:
    return await parse_chat_request(text.encode("utf-8"), LIMIT)


async def test_a_message_alone_gets_all_defaults() -> None:
    chat = await parse('{"message": "안녕하세요!"}')
    assert chat.message == "안녕하세요!"
    assert chat.model is UNSET
    assert chat.stream is False
    assert chat.context is None
    assert chat.messages is UNSET
    assert chat.think is False


async def test_unknown_fields_are_ignored() -> None:
    assert (await parse('{"message": "hi", "keep_alive": 0, "raw": true}')).message == "hi"


async def test_every_field_is_read() -> None:
    image = base64.b64encode(b"png").decode()
    chat = await parse(
        '{"message": "hi", "model": "hf.co/a/b-GGUF:Q4_K_M", "stream": true,'
        '"context": [0, 2147483647], "system": "s", "format": {"type": "object"}, "think": "high",'
        '"options": {"temperature": 0, "stop": ["a"], "seed": -1, "num_predict": -1},'
        '"images": ["' + image + '"]}'
    )
    assert chat.context == [0, 2147483647]
    assert chat.options is not UNSET
    assert chat.options.temperature == 0
    assert chat.format is not UNSET
    assert bytes(chat.format) == b'{"type":"object"}'
    assert chat.think == "high"
    assert [bytes(raw) for raw in chat.images] == [f'"{image}"'.encode()]


@pytest.mark.parametrize("body", [r'{"message": "\uD83D"}', r'{"message": "\ud83d\ude00 \ud83d."}'])
async def test_half_of_a_character_is_called_that(body: str) -> None:
    with pytest.raises(BadRequest, match=r"\(\\u[dD]83[dD] is half of a character"):
        await parse(body)


async def test_a_backslash_that_is_text_is_no_half_of_a_character() -> None:
    with pytest.raises(BadRequest, match="trailing comma"):
        await parse(r'{"message": "C:\\udata and \\ud83d",}')


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
        ('{"message": "a", "model": ""}', "model: must be a model's name, such as"),
        ('{"message": "a", "model": null}', "model: expected a string, got null"),
        ('{"message": "a", "model": "a b"}', "model: must be a model's name, such as"),
        ('{"message": "a", "model": "x-cloud\\n"}', "model: must be a model's name, such as"),
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
        (
            '{"message": "a", "think": "banana"}',
            "think: invalid enum value 'banana'. Use true, false, low, medium or high",
        ),
        (
            '{"messages": [{"role": "tool", "content": "a"}]}',
            "messages[0].role: invalid enum value 'tool'. Use system, user or assistant",
        ),
        ('{"message": "a", "think": 1}', "think: expected a boolean or a string, got an integer"),
        ('{"message": "a", "images": ["!!"]}', "images[0]: is not base64"),
        ('{"message": "a", "images": ["data:image/png;base64,AAAA"]}', "images[0]: is not base64"),
        ('{"message": "a", "images": [""]}', "images[0]: is not base64"),
        ('{"message": "a", "images": "AAAA"}', "images: expected an array"),
        ('{"message": "a", "images": [1]}', "images[0]: expected a string, got a number"),
        ('{"message": "a", "images": [["AAAA"]]}', "images[0]: expected a string, got an array"),
        ('{"message": "a", "images": ["AAA"]}', "images[0]: is not base64"),
        ('{"message": "a", "images": ["AA=A"]}', "images[0]: is not base64"),
        ('{"message": "a", "images": ["A==="]}', "images[0]: is not base64"),
        ('{"message": "a", "images": ["AA\\\\/A"]}', "images[0]: is not base64"),
        ('{"message": "a", "images": ["AAA\\n"]}', "images[0]: is not base64"),
        (
            msgspec.json.encode({"message": "a", "images": ["AA=="] * 33}).decode(),
            "images: expected an array of",
        ),
        (
            msgspec.json.encode(
                {"messages": [{"role": "user", "content": "a", "images": ["AA==", "AA=="]}] * 17}
            ).decode(),
            "images: 34 of them exceed the limit of 32",
        ),
        ('{"message": "a", "context": [%s]}' % ("1" * 5000), "context[0]: "),
        ('{"message": "a", "format": {"minLength": %s}}' % ("1" * 5000), "format"),
    ],
)
async def test_an_invalid_body_is_refused_naming_the_field(body: str, start: str) -> None:
    with pytest.raises(BadRequest) as caught:
        await parse(body)
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize("field", ["x", "format", "options", "message"])
async def test_depth_bombs_are_refused(field: str) -> None:
    bomb = '{"a":' * 500_000 + "1" + "}" * 500_000
    with pytest.raises(BadRequest):
        await parse(f'{{"message": "a", "{field}": {bomb}}}')


async def test_an_error_does_not_echo_the_whole_input() -> None:
    with pytest.raises(BadRequest, match=r"^think: ") as caught:
        await parse(msgspec.json.encode({"message": "a", "think": " - at `$.x`" * 1000}).decode())
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("image", ["AAA\\u002B", "AA\\/\\u002b", "A\\u002F\\u003D\\u003d", "AAAA"])
async def test_base64_is_read_however_json_writers_escape_it(image: str) -> None:
    for filler in ("", "A" * (PIECE_BYTES - 1), "A" * (PIECE_BYTES - 4)):
        text = "A" * (-len(filler) % 4) + filler + image
        chat = await parse(f'{{"message": "a", "images": ["{text}"]}}')
        assert bytes(chat.images[0]) == f'"{text}"'.encode(), "it is passed on untouched"


async def test_the_widest_window_of_penalties_is_a_number_for_every_ollama() -> None:
    chat = await parse('{"message": "a", "options": {"repeat_last_n": -1}}')
    assert chat.options is not UNSET
    assert chat.options.repeat_last_n == 131_072


def big(**fields: object) -> str:
    """Return a body that is weighed before it is decoded."""
    said = {} if "messages" in fields else {"message": "a"}
    return msgspec.json.encode({**said, **fields, "unknown": "x" * 70_000}).decode()


@pytest.mark.parametrize(
    ("fields", "start"),
    [
        ({"message": "가" * 1_100_000}, "The conversation is longer than"),
        ({"system": "x" * 3_200_000}, "The conversation is longer than"),
        ({"context": [1] * 400_000}, "The conversation is longer than"),
        ({"images": ["AA=="] * 40}, "images: expected an array of length <= 32"),
        ({"images": ["AA=="] * 40_000}, "images: they exceed the limit of 32"),
        ({"images": [1] * 40_000}, "images: they exceed the limit of 32"),
        ({"options": {"stop": ["x"] * 40_000}}, "options: is over 65536 bytes"),
        ({"format": {"enum": [{}] * 40_000}}, "format: is over 65536 bytes"),
        ({"messages": [{"role": "user"}]}, "messages[0].content: is required"),
        ({"messages": {"role": "user"}}, "messages: expected an array, got an object"),
        ({"messages": ["a"]}, "messages[0]: expected an object, got a string"),
        ({"messages": [{"role": "user", "content": "x" * 3_200_000}]}, "The con"),
        (
            {"messages": [{"role": "user", "content": ""}] * 40_000},
            "messages: there are more than 4096",
        ),
    ],
)  # fmt: skip
async def test_a_large_body_is_refused_by_the_weight_of_its_parts(
    fields: dict[str, object], start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = big(**fields)
    if "length <=" not in start:  # only counted, never decoded
        monkeypatch.setattr(request, "_decode", lambda body: pytest.fail("it was decoded"))
    with pytest.raises(BadRequest) as caught:
        await parse(text)
    assert str(caught.value).startswith(start)


@pytest.mark.parametrize(
    "body",
    [
        '{"message": "a", "context": [%s], "context": [], "unknown": "%s"}',
        '{"messages": [{"role": "user", "content": "b", "images": [%s], "images": []}], "x": "%s"}',
    ],
)
async def test_a_field_that_comes_twice_is_decoded_once(
    body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    original = request._decode

    def decode(data: bytes) -> ChatRequest:
        decoded.append(data)
        return original(data)

    monkeypatch.setattr(request, "_decode", decode)
    await parse(body % (",".join(["1"] * 100_000), "x" * 70_000))
    assert len(decoded[0]) < 200, "what was not weighed is not decoded either"


def test_invented_charsets_are_not_remembered() -> None:
    """Python's table of codecs keeps every name that it is asked for, forever."""
    tracemalloc.start()
    try:
        for round_ in range(2):
            before, _ = tracemalloc.get_traced_memory()
            for number in range(2000):
                name = f"{round_}-{number}-".ljust(1000, "x")
                with pytest.raises(BadRequest, match="charset"):
                    charset_of(f"application/json; charset={name}".encode())
            kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert kept < 200_000
