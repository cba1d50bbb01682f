"""`python -m core.keys`, and the file that it edits."""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from core.contract.errors import InvalidCredentials
from core.keys.__main__ import main
from core.keys.editing import KeysError, create
from core.keys.records import ApiKey, digest, read_keys
from core.keys.store import KeyStore
from core.settings.environment import SettingsError

Run = Callable[..., str]


@pytest.fixture
def run(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("API_KEYS_FILE", str(path))

    def run(*arguments: str) -> str:
        main(arguments)
        return capsys.readouterr().out

    return run


@pytest.mark.skipif(os.getuid() != 0, reason="only root can edit another user's file")
def test_what_root_edits_stays_with_the_servers_user(path: Path, run: Run) -> None:
    create(path, "a")
    Path(f"{path}.lock").unlink()
    os.chown(path, 65534, 65534)
    run("create", "--name", "b")
    for owned in (path, Path(f"{path}.lock")):
        assert (owned.stat().st_uid, owned.stat().st_gid) == (65534, 65534)


def test_a_key_is_recognisable_long_and_shown_once(path: Path) -> None:
    text = create(path, "ci")
    assert re.fullmatch(r"owa_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", text)
    assert text not in path.read_text("utf-8")
    assert text.split("_", 2)[2] not in path.read_text("utf-8")
    assert read_keys(path)[0].sha256 == digest(text)
    assert create(path, "other") != text


def test_a_key_for_a_gateway_is_alphanumeric(run: Run, path: Path, store: KeyStore) -> None:
    created = run("create", "--name", "gateway", "--alphanumeric").strip()
    rotated = run("rotate", "gateway", "--alphanumeric").strip()
    for text in (created, rotated):
        assert re.fullmatch(r"owa[0-9a-f]{8}[A-Za-z0-9]{64}", text)
        assert text not in path.read_text("utf-8")
    assert store.authenticate(rotated).name == "gateway"
    for wrong in (created, rotated[:-1], f"owa_{rotated[3:]}"):
        with pytest.raises(InvalidCredentials):
            store.authenticate(wrong)


def test_the_file_is_private_and_no_temporary_file_is_left(path: Path) -> None:
    create(path, "a")
    create(path, "b")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {file.name for file in path.parent.iterdir()} == {"keys.json", "keys.json.lock"}


def test_a_failed_write_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create(path, "a")
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        create(path, "b")
    assert path.read_bytes() == before
    assert {file.name for file in path.parent.iterdir()} == {"keys.json", "keys.json.lock"}


def test_concurrent_commands_lose_no_key(path: Path) -> None:
    names = [f"key-{index}" for index in range(4)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "core.keys", "create", "--name", name],
            env={**os.environ, "API_KEYS_FILE": str(path)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name in names
    ]
    assert [process.wait() for process in processes] == [0] * 4
    assert {key.name for key in read_keys(path)} == set(names)


def test_the_command_line_covers_a_keys_whole_life(run: Run, path: Path) -> None:
    text = run(
        *("create", "--name", "ci", "--rate", "60/minute", "--concurrent", "2"),
        *("--models", "llama3.1:8b, qwen2.5:*", "--expires", "90d"),
    ).strip()
    [key] = read_keys(path)
    assert (key.rate, key.concurrent, key.models) == ("60/minute", 2, ("llama3.1:8b", "qwen2.5:*"))
    assert key.expires == key.created + timedelta(days=90)

    listed = run("list")
    assert listed.startswith(f"ci  id owa_{key.id}  created ")
    assert "models llama3.1:8b,qwen2.5:*" in listed
    assert key.sha256 not in listed
    assert text not in listed

    assert run("rotate", "ci").strip() != text
    [rotated] = read_keys(path)
    assert rotated.sha256 != key.sha256
    assert rotated.models == key.models
    assert rotated.expires == rotated.created + timedelta(days=90)

    run("revoke", "ci")
    assert run("list") == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "--name", "two words"),
        ("create", "--name", "line\n"),
        ("create", "--name", "../x"),
        ("create", "--name", "taken"),
        ("create", "--name", "x", "--rate", "often"),
        ("create", "--name", "x", "--rate", "0/minute"),
        ("create", "--name", "x", "--concurrent", "0"),
        ("create", "--name", "x", "--models", "a,,b"),
        ("create", "--name", "x", "--expires", "0d"),
        ("create", "--name", "x", "--expires", "1y"),
        ("revoke", "nobody"),
        ("rotate", "nobody"),
    ],
)
def test_a_failed_command_changes_nothing(run: Run, path: Path, arguments: list[str]) -> None:
    create(path, "taken")
    before = path.read_bytes()
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code != 0
    assert path.read_bytes() == before


@pytest.mark.parametrize("option", ["--rate", "--tokens"])
def test_a_wrong_rate_is_explained(
    run: Run, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run("create", "--name", "x", option, "often")
    assert "a rate such as 60/minute" in capsys.readouterr().err


def test_the_files_variable_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("API_KEYS_FILE", raising=False)
    with pytest.raises(SystemExit, match="Set API_KEYS_FILE"):
        main(["list"])


def test_a_missing_directory_is_a_one_line_error(run: Run, path: Path) -> None:
    path.parent.rmdir()
    with pytest.raises(SystemExit, match=r"^API_KEYS_FILE cannot be written: [^\n]+$"):
        run("create", "--name", "ci")


def test_a_file_that_is_not_text_is_refused(
    path: Path, store: KeyStore, caplog: pytest.LogCaptureFixture
) -> None:
    text = create(path, "ci")
    assert store.authenticate(text).name == "ci"
    path.write_bytes(b'[{"name":"\xff"}]')
    with pytest.raises(SettingsError, match="API_KEYS_FILE is invalid"):
        read_keys(path)
    assert store.authenticate(text).name == "ci"
    assert "The keys loaded before stay valid" in caplog.text


def test_creating_a_name_twice_is_an_error(path: Path) -> None:
    create(path, "ci")
    with pytest.raises(KeysError, match="Rotate or revoke"):
        create(path, "ci")
    assert isinstance(read_keys(path)[0], ApiKey)


@pytest.mark.parametrize("arguments", [("create", "--name", "new"), ("rotate", "old")])
def test_a_key_that_nobody_could_read_is_called_lost(path: Path, arguments: list[str]) -> None:
    create(path, "old")
    before = path.read_bytes()
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "core.keys", *arguments],
        env={**os.environ, "API_KEYS_FILE": str(path)},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.returncode != 0
    assert path.read_bytes() != before
    assert done.stderr.startswith(
        "The new key cannot be shown, so it is lost: Broken pipe. Rotate it\n"
    )
