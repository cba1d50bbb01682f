import json
import logging
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from core.contract.errors import InvalidCredentials
from core.keys import store as key_store
from core.keys.__main__ import main
from core.keys.editing import KeysError, create, revoke, rotate
from core.keys.records import ApiKey, digest, read_keys
from core.keys.store import KeyStore
from core.settings.environment import SettingsError
from core.settings.schema import Settings

Run = Callable[..., str]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def run(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("API_KEYS_FILE", str(path))

    def run(*arguments: str) -> str:
        main(arguments)
        return capsys.readouterr().out

    return run


@pytest.fixture
def store(path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyStore:
    """Return a store that checks its file on every use."""
    monkeypatch.setattr(key_store, "CHECK_INTERVAL_S", 0)
    return KeyStore(path=path)


def stored(text: str, **fields: Any) -> dict[str, Any]:
    key_id = text.removeprefix("owa_").partition("_")[0]
    values = {"id": key_id, "sha256": digest(text), "created": "2026-01-01T00:00:00Z"}
    return {"name": "ci", **values, **fields}


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


def test_a_stored_key_is_found_only_by_its_text(path: Path, store: KeyStore) -> None:
    text = create(path, "ci")
    assert store.authenticate(text).name == "ci"
    for wrong in (
        text[:-1],
        f"{text}x",
        text.upper(),
        text[4:],
        f"owa_{read_keys(path)[0].id}",
        "",
    ):
        with pytest.raises(InvalidCredentials, match="unknown or has been revoked"):
            store.authenticate(wrong)
    with pytest.raises(InvalidCredentials, match="unknown"):
        store.authenticate(digest(text))


def test_changes_are_seen_without_a_restart(path: Path, store: KeyStore) -> None:
    first = create(path, "ci")
    assert store.authenticate(first).name == "ci"
    second = rotate(path, "ci")
    with pytest.raises(InvalidCredentials):
        store.authenticate(first)
    assert store.authenticate(second).name == "ci"
    revoke(path, "ci")
    with pytest.raises(InvalidCredentials):
        store.authenticate(second)


def test_the_file_is_checked_periodically_and_on_request(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_store, "CHECK_INTERVAL_S", 3600)
    store = KeyStore(path=path)
    old = create(path, "old")
    assert store.authenticate(old).name == "old"
    new = create(path, "new")
    with pytest.raises(InvalidCredentials):
        store.authenticate(new)
    store.reload()
    assert store.authenticate(new).name == "new"


@pytest.mark.parametrize("content", ["", "[{", '{"keys": []}', '[{"name": "ci"}]', "\xff"])
def test_a_broken_file_keeps_the_last_good_keys(
    path: Path, store: KeyStore, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = create(path, "ci")
    store.reload()
    path.write_text(content, "latin-1")
    assert store.authenticate(text).name == "ci"
    assert store.authenticate(text).name == "ci"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "stay valid" in caplog.text


def test_a_deleted_file_keeps_the_last_good_keys_until_it_is_back(
    path: Path, store: KeyStore, caplog: pytest.LogCaptureFixture
) -> None:
    text = create(path, "ci")
    assert store.authenticate(text).name == "ci"
    path.unlink()
    for _ in range(2):
        assert store.authenticate(text).name == "ci"
    assert caplog.messages == ["API_KEYS_FILE is gone. The keys loaded before stay valid"]
    store.reload()  # as SIGHUP does
    assert store.authenticate(text).name == "ci"
    path.write_text("[]")
    path.chmod(0o600)
    with pytest.raises(InvalidCredentials):
        store.authenticate(text)


def test_a_file_writable_by_others_is_refused(path: Path) -> None:
    create(path, "ci")
    path.chmod(0o620)
    with pytest.raises(SettingsError, match="chmod 600"):
        KeyStore(path=path)


def test_a_world_readable_file_causes_a_warning(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    create(path, "ci")
    path.chmod(0o644)
    KeyStore(path=path)
    assert "readable by every user" in caplog.text


def test_expired_keys_are_refused_as_such() -> None:
    text = "owa_00000000_secret"
    soon = datetime.now(UTC) + timedelta(hours=1)
    past = datetime.now(UTC) - timedelta(seconds=1)
    valid = KeyStore(inline=json.dumps([stored(text, expires=soon.isoformat())]))
    assert valid.authenticate(text).name == "ci"
    expired = KeyStore(inline=json.dumps([stored(text, expires=past.isoformat())]))
    with pytest.raises(InvalidCredentials, match="has expired"):
        expired.authenticate(text)
    with pytest.raises(InvalidCredentials, match="unknown"):
        expired.authenticate("owa_00000000_other")


def test_settings_combine_keys_from_both_sources(path: Path) -> None:
    inline = "owa_00000000_secret"
    filed = create(path, "filed")
    settings = Settings(api_keys=json.dumps([stored(inline)]), api_keys_file=str(path))
    store = KeyStore.from_settings(settings)
    assert store.authenticate(inline).name == "ci"
    assert store.authenticate(filed).name == "filed"
    with pytest.raises(InvalidCredentials):
        KeyStore.from_settings(Settings()).authenticate(inline)


@pytest.mark.parametrize(
    "fields", [{"name": "a\nb"}, {"sha256": "secret"}, {"id": "x"}, {"created": "2026-01-01"}]
)
def test_invalid_inline_keys_fail_startup_and_are_not_echoed(fields: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="API_KEYS is invalid") as caught:
        KeyStore(inline=json.dumps([stored("owa_00000000_secret", **fields)]))
    assert "secret" not in str(caught.value)


def test_creating_a_name_twice_is_an_error(path: Path) -> None:
    create(path, "ci")
    with pytest.raises(KeysError, match="Rotate or revoke"):
        create(path, "ci")
    assert isinstance(read_keys(path)[0], ApiKey)
