from pathlib import Path

import pytest

from core.keys import store as key_store
from core.keys.store import KeyStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def store(path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyStore:
    """Return a store that checks its file on every use."""
    monkeypatch.setattr(key_store, "CHECK_INTERVAL_S", 0)
    return KeyStore(path=path)
