"""The variant under Mangum behind serverless-offline, in front of a real model."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import copy, copytree
from typing import Any
from zipfile import ZipFile

import httpx
import pytest

from tests.programs import ROOT, free_ports, program, started

HANGUL = "안녕하세요!"


@pytest.fixture(scope="module")
def url(osls: list[str], engine_url: str, zips: Path, tmp_path_factory: Any) -> Iterator[str]:
    """The URL of the gateway; the configuration lacks what only a cloud account has."""
    folder = tmp_path_factory.mktemp("offline")
    for pattern in ("functions.yml", "*.js", "params.yml"):
        for file in (ROOT / "deploy").glob(pattern):
            copy(file, folder)
    provider = (ROOT / "deploy/provider.yml").read_text("utf-8")
    provider = re.sub(r"(?m)^.*(resolve:|API_KEYS:|OLLAMA_HEADERS:|apiKeys:).*\n", "", provider)
    provider = provider.replace("environment:\n", "environment:\n  ANONYMOUS_CLIENTS: 0.0.0.0/0\n")
    (folder / "provider.yml").write_text(provider, "utf-8")
    config = (ROOT / "deploy/serverless-mangum.yml").read_text("utf-8")
    config = config.replace("../build", str(zips))
    (folder / "offline.yml").write_text(f"{config}plugins: [serverless-offline]\n", "utf-8")
    for archive in zips.glob("*.zip"):  # it takes a function's files from the service's folder
        with ZipFile(archive) as zip_file:
            zip_file.extractall(folder)
    copytree(Path(osls[1]).parents[1], folder / "node_modules", symlinks=True)

    ports = free_ports(2)
    command = [
        *(osls[0], folder / "node_modules/osls/bin/serverless.js", "offline"),
        *("--config", "offline.yml", "--noPrependStageInUrl"),
        *("--httpPort", str(ports[0]), "--lambdaPort", str(ports[1])),
        *("--param", f"ollamaBaseUrl={engine_url}", "--param", "defaultModel=smollm2:135m"),
        *("--param", "tunnelVersion=off"),
    ]
    environ = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(folder)}
    with started(command, environ, cwd=folder, end=signal.SIGINT) as process:
        base_url = f"http://127.0.0.1:{ports[0]}"
        deadline = time.monotonic() + 300
        while True:
            try:
                httpx.get(base_url, trust_env=False)
                break
            except httpx.TransportError:
                assert process.poll() is None, "serverless-offline has ended"
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield base_url


def curl(url: str, body: dict[str, Any] | None = None) -> str:
    command = [program("curl", "apt install curl"), "--silent", "--show-error", "--max-time", "60"]
    if body:
        command += ["--data", json.dumps(body), "--header", "Content-Type: application/json"]
    ended = subprocess.run([*command, url], capture_output=True, text=True, check=True)
    return ended.stdout


def test_the_four_calls(url: str) -> None:
    health = json.loads(curl(f"{url}/api/health"))
    assert health == {"status": "ok", "ollama_status": "connected", "api_version": "1.0.0"}
    assert json.loads(curl(f"{url}/api/models"))["models"] == ["smollm2:135m"]
    body = {"message": HANGUL, "options": {"num_predict": 8}}
    answer = json.loads(curl(f"{url}/api/chat", body))
    assert (answer["success"], answer["eval_count"]) == (True, 8)
    lines = [json.loads(line) for line in curl(f"{url}/api/chat/stream", body).splitlines()]
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert "".join(line["response"] for line in lines)


def test_an_error_has_its_status_and_its_words(url: str) -> None:
    answer = httpx.post(f"{url}/api/chat", json={"message": "hi", "model": "none"}, trust_env=False)
    assert answer.status_code == 404
    assert "smollm2:135m" in answer.json()["error"]
