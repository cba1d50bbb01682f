"""The SDKs' programs: where they run, and what they report for each call."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import run
from tests.compatible import CHAT, COMPLETIONS, KEY, MESSAGES, MODEL, RESPONSES
from tests.programs import ROOT, npm_ci, program

HERE = ROOT / "tests/clients/v1"
FRAMEWORKS = ROOT / "build/clients/bin/python"
"""The Python of the clients that need packages in other versions than this project."""
LIMIT_S = 500
"""Seconds for a program; on a busy machine the imports of LiteLLM alone take a minute."""
QUIET = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false"}
"""Settings that keep the clients from calling other servers."""


@dataclass(frozen=True)
class Client:
    """One SDK, and the path that it calls."""

    name: str
    path: str
    language: str = "python"

    @property
    def title(self) -> str:
        """Its name in the tests and in the table."""
        return f"{self.name} ({self.language})"

    @property
    def speaks_chat(self) -> bool:
        """Whether it has tools, structured outputs and embeddings, too."""
        return self.path == CHAT

    async def call(self, folder: Path, url: str, *calls: str) -> list[dict[str, Any]]:
        """Make the calls, one after the other; `folder` has the packages for Node."""
        command: list[str | Path]
        if self.language == "node":
            command = [program("node", "apt install nodejs"), folder / "sdks.mjs"]
        elif self.language == "frameworks":
            command = [FRAMEWORKS, HERE / "sdks.py"]
        else:
            command = [sys.executable, HERE / "sdks.py"]
        asked = (self.name, url, KEY, MODEL, *calls)
        ended = await run(*command, *asked, cwd=folder, limit_s=LIMIT_S, **QUIET)
        assert ended.status == 0, ended.errors
        results: list[dict[str, Any]] = json.loads(ended.output.splitlines()[-1])
        return results


CLIENTS = [
    Client("openai", CHAT),
    Client("completions", COMPLETIONS),
    Client("responses", RESPONSES),
    Client("anthropic", MESSAGES),
    Client("openai", CHAT, "node"),
    Client("responses", RESPONSES, "node"),
    Client("anthropic", MESSAGES, "node"),
    Client("ai", CHAT, "node"),
    Client("langchain", CHAT, "frameworks"),
    Client("litellm", CHAT, "frameworks"),
]


def missing(client: Client) -> str:
    """Return why `client` cannot run here; empty if it can."""
    if client.language == "frameworks" and not FRAMEWORKS.is_file():
        return "build/clients is not there: tests/clients/v1/install.sh makes it"
    return ""


def skip_without(client: Client) -> None:
    """Skip the test if `client` cannot run here."""
    if why := missing(client):
        pytest.skip(why)


def install_for_node(folder: Path) -> None:
    """Put the SDKs for Node into `folder`, and the program that calls them."""
    npm_ci(HERE, folder)
    (folder / "sdks.mjs").write_bytes((HERE / "sdks.mjs").read_bytes())
