"""The secret of the functions on AWS, as the guide creates and changes it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.keys.editing import create
from core.keys.records import parse_keys
from tests.programs import ROOT

HEADERS = '{"X-Tunnel-Token":"0123abcd"}'
STORE = "rediss://:password@store.example.com"


def secret(*arguments: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.secret", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environ},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def environ(keys: Path) -> dict[str, str]:
    gateway = create(keys, "gateway", alphanumeric=True)
    return {"API_KEYS_FILE": str(keys), "API_KEY": gateway, "OLLAMA_HEADERS": HEADERS}


def test_a_new_secret_has_what_the_deployment_looks_up(environ: dict[str, str]) -> None:
    made = json.loads(secret(**environ).stdout)
    assert made.pop("API_KEYS") == Path(environ["API_KEYS_FILE"]).read_text("utf-8")
    assert made == {"API_KEY": environ["API_KEY"], "OLLAMA_HEADERS": HEADERS}
    assert json.loads(secret(**environ, STORAGE=STORE).stdout)["STORAGE"] == STORE


def test_new_keys_leave_the_rest_of_the_secret_alone(environ: dict[str, str], keys: Path) -> None:
    present = secret(**environ, STORAGE=STORE).stdout
    create(keys, "alice")
    ended = secret("--update", stdin=present, API_KEYS_FILE=str(keys))
    changed, before = json.loads(ended.stdout), json.loads(present)
    assert [key.name for key in parse_keys(changed.pop("API_KEYS"))] == ["gateway", "alice"]
    assert before.pop("API_KEYS")
    assert changed == before


@pytest.mark.parametrize(
    ("arguments", "changes", "problem"),
    [
        ((), {"API_KEYS_FILE": ""}, "API_KEYS_FILE"),
        ((), {"API_KEYS_FILE": "/nowhere"}, "API_KEYS_FILE cannot be read"),
        ((), {"API_KEYS_FILE": str(ROOT / "README.md")}, "API_KEYS_FILE is invalid"),
        ((), {"API_KEY": ""}, "Set and export API_KEY,"),
        ((), {"API_KEY": "owa_0123abcd_not-for-a-gateway"}, "API_KEY is invalid"),
        ((), {"OLLAMA_HEADERS": ""}, "Set and export OLLAMA_HEADERS"),
        ((), {"STORAGE": "store.example.com"}, "STORAGE is invalid"),
        (("--update",), {}, "No secret on standard input"),
    ],
)
def test_what_is_missing_is_one_line_and_no_secret(
    environ: dict[str, str], arguments: tuple[str, ...], changes: dict[str, str], problem: str
) -> None:
    ended = secret(*arguments, **{**environ, **changes})
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert problem in line
    assert environ["API_KEY"] not in line
