"""What keeps a server from starting is found without starting one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import bundle
from tests.programs import free_ports

NOWHERE = "http://127.0.0.1:1"


def handlers(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    (port,) = free_ports(1)
    own = {"OLLAMA_BASE_URL": NOWHERE, "HOST": "127.0.0.1", "PORT": str(port), "WEB_PORT": "0"}
    return subprocess.run(
        [sys.executable, "-m", "handlers", *arguments],
        env=os.environ | own | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "environ"),
    [
        ("PORT is invalid", {"PORT": "many"}),
        ("PORT and WEB_PORT are the same", {"PORT": "28000", "WEB_PORT": "28000"}),
        ("Cannot listen on HOST and PORT", {"HOST": "192.0.2.1"}),
        ("SSL_CERTFILE or SSL_KEYFILE is invalid", {"SSL_CERTFILE": "/none"}),
        ("OLLAMA_CA_FILE is invalid", {"OLLAMA_BASE_URL": "https://x", "OLLAMA_CA_FILE": "/none"}),
        ("API_KEYS_FILE cannot be read", {"API_KEYS_FILE": "/"}),
        ("API_KEYS is invalid", {"API_KEYS": "no JSON"}),
        ("JWT_PUBLIC_KEY_FILE cannot be read", {"JWT_PUBLIC_KEY_FILE": "/none"}),
        ("MAX_MEMORY_BYTES is invalid", {"MAX_MEMORY_BYTES": "1"}),
        ("LOG_FILE cannot be opened", {"LOG_FILE": "/none/log"}),
        ("LOG_FILE cannot be opened", {"LOG_FILE": "/"}),
    ],
)
def test_what_ends_a_start_is_found_before(words: str, environ: dict[str, str]) -> None:
    for arguments in ([], ["--check"]):
        ended = handlers(*arguments, **environ)
        assert ended.returncode == 1
        assert ended.stderr.splitlines()[-1].startswith(words)
        assert "Listening" not in ended.stdout


def test_a_check_disturbs_no_server_and_leaves_nothing_behind(tmp_path: Path) -> None:
    files = {"USAGE_FILE": str(tmp_path / "usage.db"), "LOG_FILE": str(tmp_path / "log")}
    with bundle(NOWHERE) as url:
        checked = handlers("--check", PORT=url.rpartition(":")[2], **files)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


def test_a_key_file_that_does_not_exist_is_mentioned(tmp_path: Path) -> None:
    checked = handlers("--check", API_KEYS_FILE=str(tmp_path / "keys.json"))
    said = "API_KEYS_FILE does not exist: none of its keys is valid\n"
    assert (checked.returncode, checked.stderr) == (0, said)
