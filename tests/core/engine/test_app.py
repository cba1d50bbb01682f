"""Compares the engine's answers with those of a real Ollama."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.core.engine.asking import MODEL
from tests.recorded import Recorded

SAME_ANSWER = [
    "chat_nonstream",
    "chat_stream",
    "generate_context_empty_list",
    "generate_context_null",
    "generate_empty_prompt_load_cold",
    "generate_no_prompt_load_warm",
    "generate_nonstream",
    "generate_nonstream_context",
    "generate_stream",
    "generate_stream_context",
    "generate_stream_default",
    "keep_alive_string",
    "model_name_case",
    "num_predict_0",
    "option_num_predict_float",
    "option_unknown",
    "unknown_top_level_field",
]
SAME_PROMPT = ["context_plus_system", "images_non_vision", "images_non_vision_stream", "stop_word"]
SAME_ERROR = [
    "err_bad_json",
    "err_bad_json2",
    "err_body_array",
    "err_body_empty",
    "err_format_bad",
    "err_format_bad_stream",
    "err_model_empty",
    "err_model_field_absent",
    "err_model_missing_404",
    "err_model_missing_404_nonstream",
    "err_model_missing_tag",
    "err_option_type_num_predict_string",
    "err_option_type_stop_string",
    "err_option_type_temperature_string",
    "err_think_bad_string",
    "err_think_true",
    "err_type_context_floats",
    "err_type_context_string",
    "err_type_context_strings",
    "err_type_model_int",
    "err_type_options_list",
    "err_type_prompt_int",
    "err_type_stream_string",
    "err_unknown_route",
    "err_unknown_route_post",
    "err_version_post",
    "err_wrong_method_get_generate",
    "err_wrong_method_post_tags",
    "err_wrong_method_put_generate",
    "err_host_evil",
    "err_host_evil_generate",
    "origin_disallowed",
    "origin_disallowed_generate",
    "root_get",
]
SAME_STATUS = ["context_id_over_int64", "err_images_not_base64"]
# Omitted by Ollama if 0, as after a single token.
OPTIONAL = {"eval_duration"}
MEASURED = re.compile(r"created_at|.*_duration")
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}Z")


async def repeat(engine: httpx.AsyncClient, recorded: Recorded) -> httpx.Response:
    """Send the recorded request; the recorded server's temperature was 0.

    The recorded model had no other parameters of its own.
    """
    body = recorded.request["body"]
    if (
        isinstance(body, dict)
        and body.keys() & {"prompt", "messages"}
        and isinstance(body.get("options", {}), dict)
    ):
        plain = {"temperature": 0, "repeat_penalty": 1.1, "num_predict": -1}
        body = {**body, "options": {**plain, **body.get("options", {})}}
    content = {"content": body} if isinstance(body, str) else {"json": body}
    headers = dict(recorded.request["headers"])
    if recorded.request["host"]:
        headers["Host"] = recorded.request["host"]
    return await engine.request(
        recorded.request["method"], recorded.request["path"], headers=headers, **content
    )


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return [(key, shape(item)) for key, item in value.items() if key not in OPTIONAL]
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return type(value)


def unmeasured(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if not MEASURED.fullmatch(key)}


@pytest.mark.parametrize("name", SAME_ANSWER)
async def test_answers_token_for_token_as_recorded(engine: httpx.AsyncClient, name: str) -> None:
    recorded = Recorded(name)
    response = await repeat(engine, recorded)
    assert response.status_code == recorded.status
    assert response.headers["content-type"] == recorded.headers["Content-Type"]
    lines = [httpx.Response(200, content=line).json() for line in response.content.splitlines()]
    assert [shape(line) for line in lines] == [shape(line) for line in recorded.lines]
    assert [unmeasured(line) for line in lines] == [unmeasured(line) for line in recorded.lines]
    assert all(RFC3339.fullmatch(line["created_at"]) for line in lines)


@pytest.mark.parametrize("name", SAME_PROMPT)
async def test_reads_the_prompt_as_recorded(engine: httpx.AsyncClient, name: str) -> None:
    recorded = Recorded(name)
    end = recorded.lines[-1]
    line = httpx.Response(
        200, content=(await repeat(engine, recorded)).content.splitlines()[-1]
    ).json()
    assert shape(line) == shape(end)
    assert line["prompt_eval_count"] == end["prompt_eval_count"]
    prompt = slice(end["prompt_eval_count"])
    assert line["context"][prompt] == end["context"][prompt]


@pytest.mark.parametrize("name", SAME_ERROR)
async def test_fails_as_recorded(engine: httpx.AsyncClient, name: str) -> None:
    recorded = Recorded(name)
    response = await repeat(engine, recorded)
    assert response.status_code == recorded.status
    assert response.content == recorded.body
    media_type = recorded.headers.get("Content-Type", "").partition(";")[0]
    assert response.headers.get("content-type", "").partition(";")[0] == media_type
    if "Allow" in recorded.headers:
        assert set(response.headers["allow"].split(", ")) == set(
            recorded.headers["Allow"].split(", ")
        )


@pytest.mark.parametrize("name", SAME_STATUS)
async def test_refuses_what_the_recorded_server_refused(
    engine: httpx.AsyncClient, name: str
) -> None:
    recorded = Recorded(name)
    response = await repeat(engine, recorded)
    assert response.status_code == recorded.status
    assert [*response.json()] == ["error"]


@pytest.mark.parametrize("name", ["tags_one", "ps_loaded", "version"])
async def test_lists_as_recorded(engine: httpx.AsyncClient, name: str) -> None:
    recorded = Recorded(name)
    response = await repeat(engine, recorded)
    assert response.headers["content-type"] == recorded.headers["Content-Type"]
    assert shape(response.json()) == shape(recorded.lines[0])
    for model in response.json().get("models", []):
        (known,) = recorded.lines[0]["models"]
        assert model["name"] == known["name"]
        assert model["details"] == known["details"]


@pytest.mark.parametrize(("name", "path"), [("version_head", "version"), ("tags_head", "tags")])
async def test_answers_a_head_request(engine: httpx.AsyncClient, name: str, path: str) -> None:
    response = await engine.head(f"/api/{path}")
    assert response.status_code == Recorded(name).status
    assert not response.content


SHOWN = Path(__file__).parents[2] / "recordings" / "show"


@pytest.mark.parametrize("version", ["", "v0.32.15"])
async def test_shows_the_fields_that_clients_read(engine: httpx.AsyncClient, version: str) -> None:
    real = json.loads((SHOWN / version / "show.json").read_text("utf-8"))
    for name in ({"model": MODEL.upper()}, {"name": MODEL}, {"name": MODEL, "model": ""}):
        shown = (await engine.post("/api/show", json=name)).json()
        assert [field for field in real if field != "tensors"] == [*shown]
        *stops, temperature, penalty, limit = shown["parameters"].splitlines()
        assert stops == real["parameters"].splitlines()
        assert temperature.split() == ["temperature", "0"]
        assert penalty.split() == ["repeat_penalty", "1"]
        assert limit.split() == ["num_predict", "512"]
        assert shown["capabilities"] == real["capabilities"]
        assert shown["details"].keys() == real["details"].keys()
        known = real["model_info"].items() & shown["model_info"].items()
        assert len(known) == len(shown["model_info"])
        assert shown["model_info"]["llama.context_length"] == 8192
        assert shown["template"] in shown["modelfile"]


@pytest.mark.parametrize(
    ("content", "status", "error"),
    [
        (b"{}", 400, "model is required"),
        (b"", 400, "missing request body"),
        (b'{"model":', 400, "unexpected EOF"),
        (b'{"model":"x"}', 404, "model 'x' not found"),
        (b'{"name":"x"}', 404, "model 'x' not found"),
        (
            b'{"model":1}',
            400,
            "json: cannot unmarshal number into Go struct field ShowRequest.model of type string",
        ),
    ],
)
async def test_shows_nothing_else(
    engine: httpx.AsyncClient, content: bytes, status: int, error: str
) -> None:
    response = await engine.post("/api/show", content=content)
    assert (response.status_code, response.json()) == (status, {"error": error})


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1", "[::1]:2", "127.1.2.3"])
@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1", None])
async def test_a_local_page_may_call(
    engine: httpx.AsyncClient, host: str, origin: str | None
) -> None:
    headers = {"Host": host, **({"Origin": origin} if origin else {})}
    assert (await engine.get("/api/version", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example.com"},
        {"Host": "localhost.evil.example.com"},
        {"Host": "10.0.0.1"},
        {"Origin": "null"},
        {"Origin": "https://localhost.evil.example.com"},
        {"Origin": "http://["},
        {"Origin": "file://"},
    ],
)
async def test_a_foreign_page_is_refused(
    engine: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    response = await engine.get("/api/tags", headers=headers)
    assert (response.status_code, response.content) == (403, b"")


@pytest.mark.parametrize(
    ("question", "answer"),
    [("What is 2+2?", "4"), ("What is the capital of France?", "Paris"), ("Hello", "Hello")],
)
async def test_a_first_answer_without_any_option_does_not_embarrass(
    engine: httpx.AsyncClient, question: str, answer: str
) -> None:
    messages = [{"role": "user", "content": question}]
    body = {"model": MODEL, "messages": messages, "stream": False}
    said = (await engine.post("/api/chat", json=body)).json()
    assert answer in said["message"]["content"]
    assert said["eval_count"] < 20
    assert (await engine.post("/api/chat", json=body)).json()["message"] == said["message"]


async def test_a_chat_without_messages_loads_the_model(engine: httpx.AsyncClient) -> None:
    nothing: list[dict[str, object]] = [{}, {"messages": []}, {"messages": None}]
    for messages in nothing:
        response = await engine.post("/api/chat", json={"model": MODEL, **messages})
        answer = response.json()
        assert (answer["done"], answer["done_reason"]) == (True, "load")
        assert answer["message"] == {"role": "assistant", "content": ""}
