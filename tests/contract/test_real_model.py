"""The contract, over real sockets, with a real model behind the bundle.

The model is the embedded engine's; with OLLAMA_TEST_URL (and OLLAMA_TEST_MODEL) the same tests run
against a real Ollama server.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.processes import bundle

SOURCES = ["embedded", *(["ollama"] if "OLLAMA_TEST_URL" in os.environ else [])]
GREEDY = {"options": {"temperature": 0, "repeat_penalty": 1.1, "seed": 1, "num_predict": 40}}
FRANCE = {"message": "What is the capital of France?", **GREEDY}


@pytest.fixture(scope="module", params=SOURCES)
def client(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    with ExitStack() as stack:
        if request.param == "embedded":
            ollama, model = request.getfixturevalue("engine_url"), "smollm2:135m"
        else:
            ollama = os.environ["OLLAMA_TEST_URL"]
            model = os.environ.get("OLLAMA_TEST_MODEL", "smollm2:135m")
        url = stack.enter_context(bundle(ollama, DEFAULT_MODEL=model, RATE_LIMIT="off"))
        yield stack.enter_context(httpx.Client(base_url=url, trust_env=False, timeout=120))


def ask(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/api/chat", json=body)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def stream(client: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    with client.stream("POST", "/api/chat/stream", json=body) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/x-ndjson; charset=utf-8"
        return [json.loads(line) for line in answer.iter_lines()]


def test_health_and_models(client: httpx.Client) -> None:
    assert client.get("/api/health").json() == {
        "status": "ok",
        "ollama_status": "connected",
        "api_version": "1.0.0",
    }
    listed = client.get("/api/models").json()
    assert listed["success"] is True
    assert listed["count"] == len(listed["models"]) > 0


def test_a_real_answer(client: httpx.Client) -> None:
    answer = ask(client, **FRANCE)
    assert answer["success"] is True
    assert answer["done"] is True
    assert "Paris" in answer["response"]
    assert answer["done_reason"] in {"stop", "length"}
    assert all(isinstance(token, int) for token in answer["context"])
    assert answer["eval_count"] > 0
    assert answer["total_duration"] > 1_000_000


def test_a_stream_gives_the_same_answer(client: httpx.Client) -> None:
    whole, lines = ask(client, **FRANCE), stream(client, **FRANCE)
    assert "".join(line["response"] for line in lines) == whole["response"]
    assert lines[-1]["response"] == ""
    assert lines[-1]["context"] == whole["context"]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert len(lines) > 3


def test_context_continues_the_conversation(client: httpx.Client) -> None:
    first = ask(client, **FRANCE)
    second = ask(client, message="And of Germany?", context=first["context"], **GREEDY)
    assert "Berlin" in second["response"]
    assert second["prompt_eval_count"] > first["prompt_eval_count"] + first["eval_count"]


@pytest.mark.parametrize("charset", ["utf-8", "cp949"])
def test_korean_survives_the_round_trip(client: httpx.Client, charset: str) -> None:
    body = json.dumps(
        {"message": "안녕하세요! 한국어로 인사해 주세요.", **GREEDY}, ensure_ascii=False
    )
    headers = {"Content-Type": f"application/json; charset={charset}"}
    answer = client.post("/api/chat", content=body.encode(charset), headers=headers)
    assert answer.status_code == 200
    assert answer.json()["prompt_eval_count"] > 10
    assert "\ufffd" not in answer.text


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"message": ""}, 400, "message"),
        ({"message": "hi", "model": "no-such:1b"}, 404, "Installed models"),
        ({"message": "hi", "context": [-1]}, 400, "context"),
        ({"message": "hi", "context": [999_999_999]}, 400, "context"),
        ({"message": "hi", "options": {"temperature": "hot"}}, 400, "temperature"),
        ({"message": "hi", "images": ["!"]}, 400, "images"),
        ({"message": "word " * 100_000}, 400, "length"),
    ],
)
@pytest.mark.parametrize("path", ["/api/chat", "/api/chat/stream"])
def test_unanswerable_requests_are_refused(
    client: httpx.Client, path: str, body: dict[str, Any], status: int, words: str
) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["success"] is False
    assert words in answer.json()["error"]


def test_a_json_answer(client: httpx.Client) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    answer = ask(client, message="A name, as JSON.", format=schema, **GREEDY)
    assert isinstance(json.loads(answer["response"])["name"], str)


def test_a_disconnect_stops_the_model(client: httpx.Client) -> None:
    endless = {"message": "Write a very long story.", "options": {"num_predict": 4000}}
    for _ in range(6):
        with client.stream("POST", "/api/chat/stream", json=endless) as answer:
            next(answer.iter_lines())
    assert "Paris" in ask(client, **FRANCE)["response"]
