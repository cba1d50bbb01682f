"""Requests that harm Ollama never reach it."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from core.app import create_app
from core.chat.body import SMALL_BODY_BYTES
from core.settings.schema import Settings
from handlers import asgi
from tests.fake_ollama import FakeOllama, whole
from tests.gateway import shut_down
from tests.security.harmful import HARMFUL, Harmful

MODEL = "smollm2:135m"
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJg"
)


@pytest.fixture
async def gateway(fake: FakeOllama) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(asgi.routes, Settings(ollama_base_url=fake.url, default_model=MODEL))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client
    await shut_down(app)


@pytest.mark.parametrize("case", HARMFUL, ids=lambda case: str(case.name))
async def test_a_harmful_request_is_refused_naming_field_and_bound(
    gateway: httpx.AsyncClient, fake: FakeOllama, case: Harmful
) -> None:
    body = msgspec.json.encode({"message": "hi", **case.fields})
    assert len(body) < SMALL_BODY_BYTES, "no limit on sizes stops it"
    headers = {"Content-Type": "application/json"}
    for path in ("/api/chat", "/api/chat/stream"):
        answer = await gateway.post(path, content=body, headers=headers)
        assert answer.status_code == 400
        assert answer.json()["error"].startswith(case.refusal)
    assert not fake.asked()


@pytest.mark.parametrize(
    "fields",
    [
        {"format": {"type": "string", "maxLength": 2000}},
        {"format": {"type": "string", "pattern": "^[a-z]{1,2000}$"}},
        {"format": {"type": "array", "items": {"type": "integer"}, "maxItems": 2000}},
        {"format": {"type": "integer", "minimum": 5, "maximum": 5}},
        {"format": {"type": "object", "properties": {f"p{n}": {} for n in range(256)}}},
        {"format": "json"},
        {"options": {"repeat_penalty": 0.1, "repeat_last_n": 131_072, "stop": ["x"]}},
        {"options": {"repeat_last_n": 0, "temperature": 0, "top_k": 0}},
        {"options": {"temperature": 0.001, "top_k": 2**20, "seed": -1, "num_predict": -1}},
    ],
)
async def test_what_is_just_within_the_bounds_reaches_ollama(
    gateway: httpx.AsyncClient, fake: FakeOllama, fields: dict[str, Any]
) -> None:
    answer = await gateway.post("/api/chat", json={"message": "hi", **fields})
    assert answer.status_code == 200
    sent = fake.asked()[-1].json
    assert sent.get("format") == fields.get("format")
    assert sent["options"].items() >= {**fields.get("options", {}), "num_predict": 8192}.items()


@pytest.mark.parametrize(
    ("capabilities", "status"),
    [(["completion"], 400), ([], 400), (["completion", "vision"], 200), (None, 200)],
)
@pytest.mark.parametrize(
    "body",
    [
        {"message": "What is it?", "images": [PIXEL]},
        {"messages": [{"role": "user", "content": "What is it?", "images": [PIXEL]}]},
    ],
)
async def test_images_go_to_models_that_see(
    gateway: httpx.AsyncClient,
    fake: FakeOllama,
    body: dict[str, Any],
    capabilities: list[str] | None,
    status: int,
) -> None:
    fake.capabilities = capabilities
    answer = await gateway.post("/api/chat", json=body)
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["error"].startswith(f"images: model '{MODEL}' cannot see images")
        assert not fake.asked()
    else:
        assert fake.asked()[-1].json["messages"][-1]["images"] == [PIXEL]


def formats(schema: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return each way in which a path of /v1 carries a schema to Ollama's grammars."""
    named = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    plain = {"type": "json_schema", "name": "a", "schema": schema}
    return [
        ("chat/completions", {"response_format": named}),
        ("responses", {"text": {"format": plain}}),
        ("messages", {"output_format": plain}),
        ("messages", {"output_config": {"format": plain}}),
    ]


OPTIONS = {
    "temperature": ("chat/completions", "completions", "responses", "messages"),
    "top_p": ("chat/completions", "completions", "responses", "messages"),
    "top_k": ("messages",),
    "seed": ("chat/completions", "completions"),
    "presence_penalty": ("chat/completions", "completions"),
    "frequency_penalty": ("chat/completions", "completions"),
    "stop": ("chat/completions", "completions"),
    "stop_sequences": ("messages",),
    "top_logprobs": ("chat/completions", "responses"),
    "logprobs": ("completions",),
    "dimensions": ("embeddings",),
}
"""The options of a model that the paths of /v1 carry (Ollama's openai.go and anthropic.go)."""
NOT_CARRIED = {"repeat_penalty", "repeat_last_n"}


def through_v1(case: Harmful) -> list[tuple[str, dict[str, Any], str]]:
    """Return the harmful request on each path that carries it, and how its refusal starts."""
    if "format" in case.fields:
        return [(path, fields, case.refusal) for path, fields in formats(case.fields["format"])]
    ((name, value),) = case.fields["options"].items()
    refusal = case.refusal.removeprefix("options.")
    found = [(path, {name: value}, refusal) for path in OPTIONS.get(name, ())]
    if name == "stop":
        found.append(("messages", {"stop_sequences": value}, f"stop_sequences{refusal[4:]}"))
    assert found or name in NOT_CARRIED
    return found


OUT_OF_BOUNDS: list[tuple[str, Any, str]] = [
    ("temperature", -1, ": expected a number >= 0"),
    ("temperature", 1e30, ": expected a number <= 10"),
    ("top_p", 1.5, ": expected a number <= 1"),
    ("top_k", 2**31, ": expected an integer <= 1048576"),
    ("seed", 2**31, ": expected an integer <= 2147483647"),
    ("seed", -(2**31) - 1, ": expected an integer >= -2147483648"),
    ("seed", 10**30, ": "),
    ("presence_penalty", 1e30, ": expected a number <= 2"),
    ("frequency_penalty", -3, ": expected a number >= -2"),
    ("stop", "", ": expected a string of length >= 1"),
    ("stop", ["a"] * 65, ": expected an array of length <= 64"),
    ("stop", ["a" * 257], "[0]: expected a string of length <= 256"),
    ("stop", [1], "[0]: expected a string, got an integer"),
    ("stop_sequences", [""], "[0]: expected a string of length >= 1"),
    ("top_logprobs", 2**31, ": expected an integer <= 20"),
    ("logprobs", 21, ": expected an integer <= 20"),
    ("dimensions", 2**31, ": expected an integer <= 65536"),
]
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
NO_SCHEMAS: list[Any] = [[], ["a"], [{"type": []}], "text", 1, True]
V1: list[tuple[str, dict[str, Any], str]] = [
    *(found for case in HARMFUL for found in through_v1(case)),
    *(
        (path, {name: value}, f"{name}{refusal}")
        for name, value, refusal in OUT_OF_BOUNDS
        for path in OPTIONS[name]
    ),
    *((path, fields, "") for schema in NO_SCHEMAS for path, fields in formats(schema)),
    ("chat/completions", {"messages": [{"role": "user", "content": [IMAGE] * 33}]}, "messages: "),
    ("responses", {"input": [{"role": "user", "content": [IMAGE] * 33}]}, "input: "),
    ("chat/completions", {"messages": [{"role": "user", "content": "a"}] * 4097}, "messages: "),
]
"""What is refused on /v1: the path, the fields, and how the text starts."""


@pytest.mark.parametrize(("path", "fields", "refusal"), V1, ids=range(len(V1)))
async def test_a_harmful_request_is_refused_on_v1(
    gateway: httpx.AsyncClient, fake: FakeOllama, path: str, fields: dict[str, Any], refusal: str
) -> None:
    for spelled in (str, str.upper):  # Go takes both for the same
        body = {"model": MODEL, **{spelled(name): value for name, value in fields.items()}}
        answer = await gateway.post(f"/v1/{path}", json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["message"].startswith(refusal)
    assert not any(request.path.startswith("/v1/") for request in fake.requests)


@pytest.mark.parametrize("path", ["chat/completions", "completions", "responses", "messages"])
async def test_what_is_just_within_the_bounds_reaches_ollama_on_v1(
    gateway: httpx.AsyncClient, fake: FakeOllama, path: str
) -> None:
    fake.reply(whole(200, "application/json", b"{}"), path=f"/v1/{path}")
    within: dict[str, Any] = {
        "temperature": 0.001,
        "top_p": 1,
        "top_k": 2**20,
        "seed": -(2**31),
        "presence_penalty": -2,
        "frequency_penalty": 2.0,
        "stop": ["a" * 256] * 64,
        "stop_sequences": ["a"],
        "top_logprobs": 20,
        "logprobs": path == "chat/completions" or 5,
        "user": "a",
        **{name: value for _, part in formats({"maxLength": 2000}) for name, value in part.items()},
    }
    await gateway.post(f"/v1/{path}", json=within)
    assert within.items() <= fake.asked(f"/v1/{path}")[0].json.items()
