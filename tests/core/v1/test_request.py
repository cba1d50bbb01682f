import asyncio
import json
from typing import Any

import msgspec
import pytest

from core.contract.errors import BadRequest
from core.contract.schemas import Options
from core.v1.apis import CHAT_COMPLETIONS, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES, Api
from core.v1.fields import KnownFields
from core.v1.request import RelayRequest, parse

IMAGE = "data:image/png;base64,AAAA"


def parsed(api: Api, body: bytes) -> RelayRequest:
    return asyncio.run(parse(api, body, 100))


def asked(api: Api = CHAT_COMPLETIONS, **fields: Any) -> RelayRequest:
    return parsed(api, json.dumps(fields).encode())


def body_of(request: RelayRequest) -> Any:
    request.seal()
    return json.loads(request.body)


def sent(api: Api = CHAT_COMPLETIONS, **fields: Any) -> Any:
    return body_of(asked(api, **fields))


def test_what_is_not_ours_passes_untouched() -> None:
    fields: dict[str, Any] = {
        "model": "m",
        "tools": [{"x": 1}],
        "response_format": {"a": "안"},
        "new": [1.5, None],
    }
    assert sent(**fields) == {**fields, "max_tokens": 100}
    assert sent(EMBEDDINGS, model="m", input=["a"]) == {"model": "m", "input": ["a"]}


def test_a_request_may_name_no_model() -> None:
    request = asked(model=None)
    assert request.model == asked().model == ""
    request.model = "default:1b"
    assert body_of(request)["model"] == "default:1b"


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({}, 100),
        ({"max_tokens": 7}, 7),
        ({"max_tokens": 700}, 100),
        ({"max_completion_tokens": 7}, 7),
        ({"max_completion_tokens": 9, "max_tokens": 8}, 8),
        ({"max_tokens": None}, 100),
    ],
)
def test_the_answer_is_bounded_by_the_field_that_ollama_heeds(
    fields: dict[str, Any], limit: int
) -> None:
    body = sent(**fields)
    assert body["max_tokens"] == limit
    assert "max_completion_tokens" not in body
    assert sent(RESPONSES, max_output_tokens=7)["max_output_tokens"] == 7
    assert sent(MESSAGES)["max_tokens"] == 100


def test_a_stream_always_reports_its_usage_to_us() -> None:
    stream = asked(stream=True, stream_options={"include_usage": False})
    assert body_of(stream)["stream_options"] == {"include_usage": True}
    assert not stream.wants_usage
    assert asked(stream=True, stream_options={"include_usage": True}).wants_usage
    assert asked(MESSAGES, stream=True).wants_usage
    assert "stream_options" not in sent(MESSAGES, stream=True)


def test_what_would_reload_or_pin_a_model_is_dropped() -> None:
    body = sent(keep_alive=-1, Keep_Alive=1, options={"num_ctx": 1})
    assert not {"keep_alive", "Keep_Alive", "options"} & body.keys()


@pytest.mark.parametrize("name", ["Model", "MODEL", "\u212aeep_alive", "\u017ftream"])
def test_a_name_that_go_takes_for_ours_is_ours(name: str) -> None:
    folded = name.casefold()
    value: Any = {"model": "x", "keep_alive": 1, "stream": True}[folded]
    body = sent(**{name: value})
    assert name not in body
    assert body.get(folded) == (None if folded == "keep_alive" else value)


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(BadRequest, match="model: is given twice"):
        asked(model="allowed", MODEL="other")


@pytest.mark.parametrize("name", ["messages", "input"])
def test_a_developer_is_the_system_whom_templates_know(name: str) -> None:
    user: Any = {"role": "user", "content": 'the "developer" 안녕'}
    given = [{"type": "message", "role": "developer", "content": "Be brief."}, user, 5, "developer"]
    expected = [{"type": "message", "role": "system", "content": "Be brief."}, *given[1:]]
    text = 'the "developer"'
    for value, arrives in ((given, expected), (text, text)):
        fields: dict[str, Any] = {name: value}
        assert sent(**fields)[name] == arrives


@pytest.mark.parametrize("choice", ["none", {"type": "none"}, {"type": "none", "more": 1}])
def test_tools_that_may_not_be_called_are_not_sent(choice: Any) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert "tools" not in sent(tools=tools, tool_choice=choice)
    for other in ("auto", "required", {"type": "auto"}, None):
        assert sent(tools=tools, tool_choice=other)["tools"] == tools


def test_a_list_of_one_prompt_is_the_prompt() -> None:
    for prompt in ("Paris", ["Paris"]):
        assert sent(COMPLETIONS, prompt=prompt)["prompt"] == "Paris"
    for prompts in ([], ["a", "b"], [1, 2], [[1, 2]]):
        with pytest.raises(BadRequest, match="prompt: must be one text"):
            asked(COMPLETIONS, prompt=prompts)


@pytest.mark.parametrize("tokens", ["[9906, 1917]", "[[9906], [1917]]", "[\n  9906\n]"])
def test_token_ids_are_refused(tokens: str) -> None:
    with pytest.raises(BadRequest, match="input: token IDs are not supported"):
        parsed(EMBEDDINGS, f'{{"input": {tokens}}}'.encode())


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "must be a JSON object"),
        (b"[]", "must be a JSON object"),
        (b'{"model":', "must be a JSON object"),
        (rb'{"model": "\ud83d"}', r"\\ud83d is half of a character"),
        (b'{"model":1}', "model: "),
        (b'{"model":"a b"}', "model: "),
        (b'{"n":2}', "n: only 1 is supported"),
        (b'{"previous_response_id":"resp_1"}', "previous_response_id: nothing is stored here"),
        (b'{"conversation":{"id":"conv_1"}}', "conversation: nothing is stored here"),
        (b'{"stream":"yes"}', "stream: "),
        (b'{"max_tokens":0}', "max_tokens: "),
        (b'{"max_tokens":"7"}', "max_tokens: "),
        (b'{"stream_options":1}', "stream_options: "),
    ],
)
def test_a_bad_body_is_refused_with_the_field_named(body: bytes, text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        parsed(CHAT_COMPLETIONS, body)


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"content": [{"type": "image_url", "image_url": {"url": "{}"}}]}]},
        {"messages": [{"content": [{"type": "image_url", "Image_URL": "{}"}]}]},
        {"input": [{"content": [{"type": "input_image", "image_url": "{}"}]}]},
        {"input": [{"type": "input_image", "image_url": "{}"}]},
        {"messages": [{"content": [{"type": "image", "source": {"type": "url", "url": "{}"}}]}]},
        {
            "messages": [
                {"content": [{"type": "tool_result", "content": [{"source": {"url": "{}"}}]}]}
            ]
        },
    ],
)
def test_images_are_found_and_urls_of_them_refused(fields: dict[str, Any]) -> None:
    text = json.dumps(fields)
    own = parsed(CHAT_COMPLETIONS, text.replace("{}", IMAGE).encode())
    assert own.has_images
    for url in ("http://10.0.0.1/a.png", "file:///etc/passwd", "", "\\u0064ata:x"):
        with pytest.raises(BadRequest, match=r"image URLs are not supported.*as a base64 source"):
            parsed(CHAT_COMPLETIONS, text.replace("{}", url).encode())


@pytest.mark.parametrize(
    "fields",
    [
        '"content":"a","CONTENT":[{"type":"image_url","image_url":{"url":"http://x"}}]',
        '"c\\u006fntent":[{"type":"image_url","image_url":{"url":"http://x"}}]',
        '"content":[{"type":"text","text":"a","Image_URL":"http://x"}]',
        '"content":"a","\u017fource":{"url":"http://x"}',
    ],
)
def test_no_image_hides_among_plain_messages(fields: str) -> None:
    plain = '{"role":"user","content":"a"}'
    body = f'{{"messages":[{plain},{{"role":"user",{fields}}},{plain}]}}'
    with pytest.raises(BadRequest, match="image URLs are not supported"):
        parsed(CHAT_COMPLETIONS, body.encode())


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ({"type": "document", "source": {"type": "base64", "data": "AAAA"}}, '"document" blocks'),
        ({"type": "document", "source": {"type": "text", "data": "words"}}, '"document" blocks'),
        ({"type": "document", "source": {"type": "url", "url": "http://x"}}, '"document" blocks'),
        ({"type": "search_result", "source": "http://x", "content": []}, '"search_result" blocks'),
        ({"type": "input_image", "file_id": "file-1"}, "file_id: nothing is stored here"),
    ],
)
def test_a_part_that_ollama_would_leave_out_is_refused(part: dict[str, Any], text: str) -> None:
    for content in ([part], [{"type": "tool_result", "content": [part]}]):
        with pytest.raises(BadRequest, match=text):
            asked(MESSAGES, messages=[{"role": "user", "content": content}])
    with pytest.raises(BadRequest, match=text):
        asked(RESPONSES, input=[{"type": "function_call_output", "output": [part]}])


def test_a_part_that_names_no_file_is_not_refused() -> None:
    part = {"type": "input_image", "file_id": None, "image_url": IMAGE}
    assert asked(RESPONSES, input=[{"role": "user", "content": [part]}]).has_images


def test_words_about_images_are_words() -> None:
    assert not asked(
        messages=[{"role": "user", "content": 'say "image_url": "http://x"'}]
    ).has_images
    source = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    assert asked(MESSAGES, messages=[{"content": [{"type": "image", "source": source}]}]).has_images


def test_the_bounds_are_those_of_the_api() -> None:
    ours = msgspec.json.schema(KnownFields)["$defs"]["KnownFields"]["properties"]
    options = msgspec.json.schema(Options)["$defs"]["Options"]["properties"]
    same = ours.keys() & options.keys() - {"stop"}
    assert len(same) >= 6
    for name in same:
        bounds = {key: options[name][key] for key in ("minimum", "maximum") if key in options[name]}
        kinds = [kind for kind in ours[name]["anyOf"] if kind["type"] != "null"]
        assert [{key: kind.get(key) for key in bounds} for kind in kinds] == [bounds], name


async def test_other_clients_have_their_turn_while_images_are_looked_for() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await parse(CHAT_COMPLETIONS, b'{"input":[' + b"0," * 30_000 + b"0]}", 100)
    task.cancel()
    assert turns > 20


def test_what_is_nested_too_deeply_is_refused() -> None:
    fields = b'{"messages":' + b"[" * 20 + b"]" * 20 + b"}"
    with pytest.raises(BadRequest, match="messages: is nested too deeply"):
        parsed(CHAT_COMPLETIONS, fields)
