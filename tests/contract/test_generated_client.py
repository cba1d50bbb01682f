"""A client generated from the OpenAPI document works."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from core.contract.openapi import openapi_document
from tests.conftest import Serve
from tests.fake_ollama import FakeOllama, tokens

PROGRAM = """
import sys
from generated import Client
from generated.api.default import chat, health, models
from generated.models import ChatAnswer, ChatRequest, Error, Options

with Client(sys.argv[1]) as client:
    assert health.sync(client=client).ollama_status == "connected"
    assert models.sync(client=client).models == ["smollm2:135m", "llama3.1:70b"]
    request = ChatRequest(message="안녕하세요!", options=Options(temperature=0.5))
    answer = chat.sync(client=client, body=request)
    assert isinstance(answer, ChatAnswer)
    print(answer.response)
    request.context = answer.context
    assert isinstance(chat.sync(client=client, body=request), ChatAnswer)
    error = chat.sync(client=client, body=ChatRequest(message=" "))
    assert isinstance(error, Error)
    print(error.error)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that contains the package `generated`."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "openapi.json").write_text(json.dumps(openapi_document()), "utf-8")
    (folder / "config.yml").write_text("post_hooks: []", "utf-8")
    command = [
        *(sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"),
        *("--path", "openapi.json", "--config", "config.yml", "--output-path", "generated"),
    ]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


async def test_a_generated_client_works(serve: Serve, fake: FakeOllama, folder: Path) -> None:
    fake.default = tokens(["안녕", "하세요!"])
    url = await serve()
    (folder / "program.py").write_text(PROGRAM, "utf-8")
    command = [sys.executable, "program.py", url]
    ended = await asyncio.to_thread(
        subprocess.run, command, cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("안녕하세요!\nmessage: must not be empty")
    first, second = (request.json for request in fake.asked())
    assert first["messages"] == [{"role": "user", "content": "안녕하세요!"}]
    assert first["options"]["temperature"] == 0.5
    assert [message["content"] for message in second["messages"]] == ["안녕하세요!"] * 3
