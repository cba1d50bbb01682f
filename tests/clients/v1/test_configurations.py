"""The configurations of other programs in deploy/clients/README.md lead to answers."""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
import yaml

from tests.compatible import KEY, KEYS, MODEL, QUESTION
from tests.conftest import Serve
from tests.programs import ROOT

TEXT = (ROOT / "deploy/clients/README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(?:yaml|json)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def continues(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    assert {"name", "version", "schema"} <= config.keys()
    for model in config["models"]:
        assert {"name", "model"} <= model.keys()
        assert model["provider"] == "openai"
        yield model["apiBase"], model["apiKey"]


def open_webui(compose: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for service in compose["services"].values():
        environ = service["environment"]
        assert all(isinstance(value, str) for value in environ.values())
        yield environ["OPENAI_API_BASE_URL"], environ["OPENAI_API_KEY"]


def n8n(credentials: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for credential in credentials:
        assert credential["type"] == "openAiApi"
        yield credential["data"]["url"], credential["data"]["apiKey"]


@pytest.mark.parametrize(
    ("read", "text"), [(continues, BLOCKS[0]), (open_webui, BLOCKS[1]), (n8n, BLOCKS[2])]
)
async def test_what_a_configuration_names_answers(serve: Serve, read: Any, text: str) -> None:
    server = await serve(api_keys=KEYS, default_model=MODEL)
    config = json.loads(text) if read is n8n else yaml.safe_load(text)
    ((url, key),) = read(config)
    assert key == "owa_..."
    url = url.replace("127.0.0.1:5000", urlsplit(server).netloc)
    async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        assert [model.id async for model in client.models.list()]
        answer = await client.chat.completions.create(model=MODEL, messages=QUESTION)
        assert answer.choices[0].message.content


def test_no_configuration_is_untested() -> None:
    assert len(BLOCKS) == 3
