"""Where the model file is, and the error when it is missing."""

import hashlib
import importlib.metadata
from pathlib import Path

import pytest

from core.engine.model import ModelFile, ModelUnavailable, find_model, start_llama_cpp


@pytest.mark.usefixtures("installed")
def test_finds_the_file_and_its_digest() -> None:
    model = find_model()
    with model.path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == model.digest


def test_reports_that_the_model_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def files(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", files)
    with pytest.raises(ModelUnavailable, match=r"core/engine/requirements\.txt"):
        find_model()


@pytest.mark.usefixtures("installed")
def test_reports_a_file_that_is_not_a_model(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF, but no more of it")
    with pytest.raises(ModelUnavailable, match="cannot load"):
        start_llama_cpp(ModelFile(broken, ""), "key")
