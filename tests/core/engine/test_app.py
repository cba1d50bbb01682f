"""Compares the engine's answers with those of a real Ollama."""

import re
from typing import Any

import httpx
import pytest

from tests.core.engine.asking import MODEL
from tests.recorded import Recorded

SAME_ANSWER = [
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
    "err_think_true",
    "err_unknown_route",
    "err_unknown_route_post",
    "err_version_post",
    "err_wrong_method_get_generate",
    "err_wrong_method_post_tags",
    "err_wrong_method_put_generate",
]
SAME_STATUS = [
    "context_id_over_int64",
    "err_bad_json",
    "err_bad_json2",
    "err_body_array",
    "err_images_not_base64",
    "err_think_bad_string",
    "err_type_context_floats",
    "err_type_context_string",
    "err_type_context_strings",
    "err_type_model_int",
    "err_type_options_list",
    "err_type_prompt_int",
    "err_type_stream_string",
]
# Omitted by Ollama if 0, as after a single token.
OPTIONAL = {"eval_duration"}
MEASURED = re.compile(r"created_at|.*_duration")
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}Z")


async def repeat(engine: httpx.AsyncClient, recorded: Recorded) -> httpx.Response:
    """Send the recorded request; the recorded server's temperature was 0."""
    body = recorded.request["body"]
    if isinstance(body, dict) and "prompt" in body and isinstance(body.get("options", {}), dict):
        body = {**body, "options": {"temperature": 0, **body.get("options", {})}}
    content = {"content": body} if isinstance(body, str) else {"json": body}
    return await engine.request(recorded.request["method"], recorded.request["path"], **content)


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
    media_type = recorded.headers["Content-Type"].partition(";")[0]
    assert response.headers["content-type"].partition(";")[0] == media_type
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


async def test_shows_what_clients_check_their_token_ids_against(engine: httpx.AsyncClient) -> None:
    response = await engine.post("/api/show", json={"model": MODEL.upper()})
    known = response.json()
    assert known["capabilities"] == ["completion"]
    assert known["model_info"]["general.architecture"] == "llama"
    assert known["model_info"]["llama.vocab_size"] == 49152
    missing = await engine.post("/api/show", json={"model": "x"})
    assert missing.status_code == 404
    assert missing.json() == {"error": "model 'x' not found"}


async def test_refuses_a_foreign_host(engine: httpx.AsyncClient) -> None:
    response = await engine.get("/api/tags", headers={"Host": "evil.example.com"})
    assert response.is_client_error
