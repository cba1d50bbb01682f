"""Requests that name no model, with and without DEFAULT_MODEL."""

import socket
from typing import Any

import httpx
import pytest

from handlers import asgi, chat
from tests.conftest import Connect
from tests.fake_ollama import Connection, FakeOllama, Request
from tests.processes import fake_ollama, running, wait_for


async def answered_by(client: httpx.AsyncClient) -> str:
    answer = await client.post("/api/chat", json={"message": "hi"})
    assert answer.status_code == 200, answer.text
    model: str = answer.json()["model"]
    return model


async def test_the_contracts_default_is_used_if_it_is_installed(
    connect: Connect, fake: FakeOllama
) -> None:
    assert fake.models[0] != "llama3.1:70b"
    assert await answered_by(connect(chat)) == "llama3.1:70b"


async def test_otherwise_it_is_the_newest_model(connect: Connect, fake: FakeOllama) -> None:
    fake.models = ["gemma3:4b", "smollm2:135m"]
    assert await answered_by(connect(chat)) == "gemma3:4b"


async def test_or_rather_one_in_memory(connect: Connect, fake: FakeOllama) -> None:
    fake.models = ["gemma3:4b", "smollm2:135m"]
    fake.loaded = {"smollm2:135m"}
    assert await answered_by(connect(chat)) == "smollm2:135m"


async def test_but_one_that_can_chat(connect: Connect, fake: FakeOllama) -> None:
    fake.models = ["nomic-embed-text:v1.5", "smollm2:135m"]

    async def embeds(connection: Connection, request: Request) -> None:
        embeds = request.json["model"].startswith("nomic")
        connection.send_json(200, {"capabilities": ["embedding" if embeds else "completion"]})

    fake.reply(embeds, embeds, path="/api/show")
    assert await answered_by(connect(chat)) == "smollm2:135m"


async def test_a_newer_ollama_lists_what_models_can_do(connect: Connect, fake: FakeOllama) -> None:
    fake.models = ["nomic-embed-text:v1.5", "smollm2:135m"]
    listed: list[dict[str, Any]] = [
        {"name": "nomic-embed-text:v1.5", "capabilities": ["embedding"]},
        {"name": "smollm2:135m", "capabilities": ["completion"]},
    ]

    async def tags(connection: Connection, request: Request) -> None:
        connection.send_json(200, {"models": listed})

    fake.reply(tags, path="/api/tags")
    client = connect(chat, allow_cloud_models=True)  # which need not be looked up
    assert await answered_by(client) == "smollm2:135m"
    assert not fake.asked("/api/show")


async def test_without_any_model_the_error_says_what_to_install(
    connect: Connect, fake: FakeOllama
) -> None:
    fake.models = []
    answer = await connect(chat).post("/api/chat", json={"message": "hi"})
    assert answer.status_code == 404
    assert "ollama pull llama3.1:70b" in answer.json()["error"]


@pytest.mark.parametrize("connect", ["bundle"], indirect=True)
async def test_the_page_and_readiness_know_it(connect: Connect, fake: FakeOllama) -> None:
    fake.models = ["gemma3:4b"]
    client = connect(asgi)
    assert "gemma3:4b" in (await client.get("/")).text
    warning = (await client.get("/api/ready")).json()["warning"]
    assert "gemma3:4b answers requests that name no model" in warning
    missing = connect(asgi, default_model="qwen2.5:72b")
    assert "qwen2.5:72b" in (await missing.get("/")).text
    warning = (await missing.get("/api/ready")).json()["warning"]
    assert warning == "DEFAULT_MODEL is qwen2.5:72b, which is not installed"
    present = connect(asgi, default_model="gemma3:4b")
    assert "warning" not in (await present.get("/api/ready")).json()


@pytest.mark.parametrize("connect", ["bundle"], indirect=True)
async def test_readiness_says_that_the_set_one_cannot_chat(
    connect: Connect, fake: FakeOllama
) -> None:
    fake.models, fake.capabilities = ["nomic-embed-text:latest"], ["embedding"]
    client = connect(asgi, default_model="nomic-embed-text")
    warning = (await client.get("/api/ready")).json()["warning"]
    assert warning == "DEFAULT_MODEL is nomic-embed-text, which cannot chat"


def test_the_start_says_that_it_is_missing() -> None:
    with fake_ollama() as ollama:
        settings = {"OLLAMA_BASE_URL": ollama, "DEFAULT_MODEL": "qwen2.5:72b"}
        with running("-m", "handlers", PORT="0", WEB_PORT="0", **settings) as process:
            said = wait_for(process.stderr, "DEFAULT_MODEL is ")
    assert said == "qwen2.5:72b, which is not installed"


def test_the_start_says_that_ollama_does_not_answer() -> None:
    settings = {"OLLAMA_BASE_URL": "http://127.0.0.1:9"}
    with running("-m", "handlers", PORT="0", WEB_PORT="0", **settings) as process:
        said = wait_for(process.stderr, "Ollama connection error: ")
    assert said == "cannot connect to Ollama. Is it running? Check OLLAMA_BASE_URL"


def test_the_start_does_not_wait_long_for_an_ollama_that_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = {"OLLAMA_BASE_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        with running("-m", "handlers", PORT="0", WEB_PORT="0", **settings) as process:
            assert wait_for(process.stderr, "Ollama has not answered within ") == "2 seconds"
            wait_for(process.stdout, "Listening for the API on ")
