"""The commands of deploy/README.md for AWS, as a reader runs them, with fakes of aws and npx."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import yaml

from core.keys.records import parse_keys
from deploy.secret import REQUIRED
from tests.deploy.tunnel.loopback import make_certificates
from tests.programs import ROOT

GUIDE = (ROOT / "deploy/README.md").read_text("utf-8")
TUNNEL = (ROOT / "deploy/tunnel/README.md").read_text("utf-8")
AWS = """#!/bin/sh
printf '%s\\n' "aws $*" >>$HOME/calls
case $* in
    *fileb://*) cp "${*##*fileb://}" "$HOME/layer.zip" ;;
    *get-secret-value*) cat "$HOME/secret" ;;
    *file:///dev/stdin) cat >"$HOME/new" && mv "$HOME/new" "$HOME/secret" ;;
esac
"""
NPX = """#!/bin/sh
printf '%s\\n' "npx $*" >>$HOME/calls
"""


def block(heading: str, number: int = 0) -> str:
    """Return a block of commands below a heading."""
    section = GUIDE.partition(f"\n{heading}\n")[2]
    assert section, heading
    found: list[str] = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return found[number]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the project and a tunnel's certificates, where aws and npx are fakes."""
    project = tmp_path / "project"
    for name in ("core", "deploy"):
        ignored = shutil.ignore_patterns("__pycache__", "params.own.yml")
        shutil.copytree(ROOT / name, project / name, ignore=ignored)
    # It has its own test, which takes minutes.
    (project / "deploy/package.py").write_text(
        "import os, sys; open(os.environ['HOME'] + '/calls', 'a').write(f'{sys.argv}\\n')", "utf-8"
    )
    (project / ".venv/bin").mkdir(parents=True)
    for lock in (project / "requirements.txt", project / ".venv/requirements.txt"):
        shutil.copy(ROOT / "requirements.txt", lock)
    programs = {
        ".venv/bin/python": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
        "bin/aws": AWS,
        "bin/npx": NPX,
    }
    for name, text in programs.items():
        path = (project if name.startswith(".venv") else tmp_path) / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
        path.chmod(0o700)
    make_certificates("relay.example.com", tmp_path / "ollama-tunnel")
    return tmp_path


def run(home: Path, *blocks: str) -> str:
    """Run the blocks in one shell, and return what it prints."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
        cwd=home / "project",
        env={"HOME": str(home), "PATH": f"{home}/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def own_parameters(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((home / "project/deploy/params.own.yml").read_text())
    return found


def secret(home: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((home / "secret").read_text("utf-8"))
    return found


def test_a_deployment_from_nothing_then_a_key_then_a_store(home: Path) -> None:
    first = block("## On AWS")
    said = run(home, first)
    made = secret(home)
    assert set(made) == REQUIRED
    assert said.splitlines()[-1] == made["API_KEY"]
    assert [key.name for key in parse_keys(made["API_KEYS"])] == ["gateway"]
    assert "X-Tunnel-Token" in json.loads(made["OLLAMA_HEADERS"])
    assert own_parameters(home) == {
        "region": "us-east-1",
        "ollamaBaseUrl": "https://relay.example.com",
        "defaultModel": "llama3.1:8b",
    }
    calls = (home / "calls").read_text("utf-8").splitlines()
    assert calls[-2:] == ["['deploy/package.py']", "npx osls@4.3.1 deploy"]
    assert calls[0].startswith("aws secretsmanager create-secret --name ollama-web-api")

    exported = "export API_KEYS_FILE=keys.json"
    run(home, exported, block("### Keys"))
    changed = secret(home)
    assert [key.name for key in parse_keys(changed.pop("API_KEYS"))] == ["gateway", "alice"]
    assert changed == {name: made[name] for name in changed}

    run(home, exported, block("## How many requests at once"))
    stored = secret(home)
    assert stored.pop("STORAGE").startswith("rediss://")
    assert set(stored) == REQUIRED
    parameters = own_parameters(home)
    assert (parameters["region"], parameters["maxConcurrent"]) == ("us-east-1", 4)
    assert parameters["storage"].endswith(":SecretString:STORAGE}}")
    calls = (home / "calls").read_text("utf-8").splitlines()
    assert calls[-2:] == ["['deploy/package.py', '--redis']", "npx osls@4.3.1 deploy"]


def test_the_layer_has_what_the_functions_open(home: Path) -> None:
    step = TUNNEL.partition("**5. The functions**")[2]
    run(home, step.partition("```sh\n")[2].partition("```")[0])
    with ZipFile(home / "layer.zip") as layer:
        files = {info.filename: info for info in layer.infolist() if not info.is_dir()}
        assert set(files) == {"tunnel/ca.crt", "tunnel/client.crt", "tunnel/client.key"}
        assert {info.external_attr >> 16 & 0o777 for info in files.values()} == {0o644}
        key = layer.read("tunnel/client.key")
    assert key == (home / "ollama-tunnel/client/client.key").read_bytes()
    assert not {"layer", "tunnel.zip"} & {path.name for path in (home / "project").iterdir()}


def test_every_path_and_link_of_the_guide_exists() -> None:
    for folder in (ROOT / "deploy", ROOT / "deploy/tunnel"):
        text = (folder / "README.md").read_text("utf-8")
        headings = {
            re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
            for heading in re.findall(r"(?m)^#+ (.*)$", text)
        }
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if target.startswith("#"):
                assert target[1:] in headings, target
            elif not target.startswith("http"):
                assert (folder / target.partition("#")[0]).exists(), target
        for path in re.findall(r"(?<![\w/-])deploy/[\w./-]*\w", text):
            assert (ROOT / path).exists() or path == "deploy/params.own.yml", path


def test_every_parameter_that_it_names_exists_and_each_is_explained() -> None:
    parameters = set(yaml.safe_load((ROOT / "deploy/params.yml").read_text("utf-8")))
    named = set(re.findall(r"`([a-z]+[A-Z]\w+)(?:`|:)", GUIDE))
    assert named - parameters == set()
    explained = {name for name in parameters if re.search(rf"`{name}\b|\b{name}: ", GUIDE)}
    assert parameters - explained == {"adapterVersion", "requestBurst"}
