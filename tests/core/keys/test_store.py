"""The keys that a server accepts while their file changes."""

import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from core.contract.errors import InvalidCredentials
from core.keys import store as key_store
from core.keys.editing import create, revoke, rotate
from core.keys.records import digest, read_keys
from core.keys.store import KeyStore
from core.settings.environment import SettingsError
from core.settings.schema import Settings


def stored(text: str, **fields: Any) -> dict[str, Any]:
    key_id = text.removeprefix("owa_").partition("_")[0]
    values = {"id": key_id, "sha256": digest(text), "created": "2026-01-01T00:00:00Z"}
    return {"name": "ci", **values, **fields}


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


def test_a_file_that_is_missing_at_the_start_is_logged(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    KeyStore(path=path)
    assert caplog.messages == ["API_KEYS_FILE does not exist: none of its keys is valid"]
    caplog.clear()
    create(path, "ci")
    KeyStore(path=path)
    assert caplog.messages == []


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
