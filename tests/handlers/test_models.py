import asyncio
import json

import pytest

from handlers import models
from tests.conftest import Connect
from tests.fake_ollama import (
    Connection,
    FakeOllama,
    Reply,
    Request,
    error,
    never_answers,
    page,
    recorded,
    whole,
)


async def test_the_installed_models_are_listed_in_ollamas_order(
    connect: Connect, fake: FakeOllama
) -> None:
    fake.models = ["llama3.1:70b", "llama3.1:8b", "qwen2.5:72b"]
    answer = await connect(models).get("/api/models")
    assert answer.status_code == 200
    assert answer.json() == {"success": True, "models": fake.models, "count": 3}
    assert list(answer.json()) == ["success", "models", "count"]
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


async def test_no_installed_models_is_an_empty_list(connect: Connect, fake: FakeOllama) -> None:
    fake.reply(recorded("tags_empty"), path="/api/tags")
    answer = await connect(models).get("/api/models/")
    assert answer.json() == {"success": True, "models": [], "count": 0}


async def remote_alias(connection: Connection, request: Request) -> None:
    tags = [{"name": "a:1b"}, {"name": "alias:latest", "remote_model": "big", "remote_host": "x"}]
    connection.send_json(200, {"models": tags})


@pytest.mark.parametrize("allowed", [False, True])
async def test_cloud_models_are_not_listed_unless_allowed(
    connect: Connect, fake: FakeOllama, allowed: bool
) -> None:
    fake.models = ["a:1b", "gpt-oss:20b-cloud", "Deep:Cloud"]
    client = connect(models, allow_cloud_models=allowed)
    answer = await client.get("/api/models")
    assert answer.json()["models"] == (fake.models if allowed else ["a:1b"])
    fake.reply(remote_alias, path="/api/tags")
    answer = await client.get("/api/models")
    assert answer.json()["models"] == (["a:1b", "alias:latest"] if allowed else ["a:1b"])


@pytest.mark.parametrize(
    "reply",
    [error(500, "no"), page(502), page(200), recorded("err_host_evil"), recorded("version")],
)
async def test_an_invalid_answer_is_a_500(
    connect: Connect, fake: FakeOllama, reply: object
) -> None:
    fake.reply(reply, path="/api/tags")  # type: ignore[arg-type]
    answer = await connect(models).get("/api/models")
    assert answer.status_code == 500
    assert answer.json()["success"] is False
    assert answer.json()["error"].startswith("Ollama connection error: ")
    assert json.loads(answer.text) == answer.json()


async def test_ollama_down_is_a_500(connect: Connect, fake: FakeOllama) -> None:
    await fake.stop()
    answer = await connect(models).get("/api/models")
    assert answer.status_code == 500
    assert answer.json()["error"].startswith("Ollama connection error: cannot connect")
    assert "127.0.0.1" not in answer.text


async def test_a_list_that_times_out_is_a_504_that_says_so(
    connect: Connect, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.ollama.api.METADATA_TIMEOUT_S", 0.05)
    fake.reply(never_answers, path="/api/tags")
    answer = await connect(models).get("/api/models")
    assert answer.status_code == 504
    assert answer.json()["error"] == (
        "Request timeout: no complete answer within 0.05 seconds. "
        "Ollama is not responding. Is its machine overloaded?"
    )


async def test_capabilities_are_listed_on_request(
    connect: Connect, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.ollama.models.UNKNOWN_FOR_S", 0)
    fake.capabilities = ["completion", "vision"]
    client = connect(models)
    fake.reply(error(500, "no"), path="/api/show")
    for value, known in (("true", 1), ("True", 2)):  # a failure is not cached for long
        answer = (await client.get(f"/api/models?capabilities={value}")).json()
        assert (answer["models"], answer["count"]) == (fake.models, 2)
        assert list(answer["capabilities"].values()) == [["completion", "vision"]] * known
    await client.get("/api/models?capabilities=true")
    assert len(fake.asked("/api/show")) == 3  # each is looked up once, and one twice


async def test_only_a_few_models_are_looked_up_at_once(connect: Connect, fake: FakeOllama) -> None:
    fake.models = [f"m{number}:1b" for number in range(50)]
    answer = await connect(models).get("/api/models?capabilities=true")
    assert len(answer.json()["capabilities"]) == 50
    assert fake.connections <= 8


async def test_hung_model_lookups_share_one_time_limit(
    connect: Connect, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.ollama.api.METADATA_TIMEOUT_S", 1.5)
    fake.models = [f"m{number}:1b" for number in range(100)]
    fake.reply(*[never_answers] * 100, path="/api/show")
    async with asyncio.timeout(15):  # eight at once, one after the other: 19 s
        answer = await connect(models).get("/api/models?capabilities=true")
    assert (answer.json()["count"], answer.json()["capabilities"]) == (100, {})


async def test_an_ollama_without_capabilities_gives_an_empty_object(
    connect: Connect, fake: FakeOllama
) -> None:
    fake.capabilities = None
    answer = await connect(models).get("/api/models?capabilities=true")
    assert answer.json() == {
        "success": True,
        "models": fake.models,
        "count": 2,
        "capabilities": {},
        "context_lengths": dict.fromkeys(fake.models, 2048),
    }


async def test_context_length_is_that_of_the_loaded_runner(
    connect: Connect, fake: FakeOllama
) -> None:
    fake.loaded.add("smollm2:135m")
    ps = json.dumps({"models": [{"name": "smollm2:135m", "context_length": 1024}]}).encode()
    fake.reply(whole(200, "application/json", ps), path="/api/ps")
    answer = await connect(models).get("/api/models?capabilities=true")
    assert answer.json()["context_lengths"] == {"smollm2:135m": 1024, "llama3.1:70b": 2048}


@pytest.mark.parametrize(
    "reply",
    [
        error(404, "no such page"),  # a relay lets only some paths through
        error(500, "no"),
        whole(200, "application/json", b'{"models": [{"name": "smollm2:135m"}]}'),  # up to 0.9
        never_answers,
    ],
)
async def test_context_length_without_the_runners(
    reply: Reply, connect: Connect, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.ollama.api.METADATA_TIMEOUT_S", 2)
    fake.reply(reply, path="/api/ps")
    answer = (await connect(models).get("/api/models?capabilities=true")).json()
    assert answer["context_lengths"] == dict.fromkeys(fake.models, 2048)
    assert list(answer["capabilities"].values()) == [["completion"]] * 2
