"""The zips as AWS Lambda gets them: their bytes, their contents, their size."""

import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from tests.deploy.conftest import pack
from tests.programs import ROOT

RELAYED = {
    f"v1_{name}"
    for name in ("chat_completions", "completions", "embeddings", "responses", "messages")
}
FUNCTIONS = ("health", "models", "v1_models", "chat", "chat_stream", *sorted(RELAYED))
CORE = {
    *("app", "awaitables", "context", "moment"),
    *("chat/queue", "contract/dialects", "contract/errors"),
    *("contract/responses", "contract/retryable", "contract/schemas", "gate/budgets"),
    *("gate/addresses", "gate/auth", "gate/browsers", "gate/checks", "gate/hits", "gate/public"),
    *("chat/body", "chat/parts", "gate/rates", "gate/sites"),
    *("gate/tokens", "keys/records", "keys/secret", "keys/shared", "keys/store"),
    "observe/logs",
    *("ollama/connection", "ollama/pool", "ollama/upstream"),
    *(
        "serving/application",
        "serving/aws",
        "serving/exchange",
        "serving/routes",
        "serving/waiting",
    ),
    *("settings/certificates", "settings/combinations", "settings/environment"),
    *("settings/functions", "settings/networks", "settings/schema", "settings/values"),
}
CLIENT_MODULES = ("api", "client", "default", "failures", "models", "request", "transport", "wire")
CLIENT = {f"ollama/{name}" for name in CLIENT_MODULES}
CHAT = {
    f"chat/{name}"
    for name in (
        *("conversation", "images", "keywords", "large", "pattern", "phrases", "request"),
        *("schema", "stream", "turn"),
    )
} | {"serving/web_adapter"}
RELAY_MODULES = ("apis", "events", "fields", "images", "relay", "request")
RELAY = {f"v1/{name}" for name in RELAY_MODULES} | {
    *(f"chat/{name}" for name in ("conversation", "images", "keywords", "large", "pattern")),
    *("chat/phrases", "chat/request", "chat/schema", "serving/web_adapter"),
}
PACKAGES = {"anyio", "certifi", "httptools", "mangum", "msgspec", "starlette"}
CLIENT_PACKAGES = {"httpx", "idna"}
STREAMING_PACKAGES = {"uvicorn"}
BINARIES = {"httptools/parser/parser", "httptools/parser/url_parser", "msgspec/_core"}
UNCHECKED_HASH = (1).to_bytes(4, "little")
AARCH64 = (183).to_bytes(2, "little")


@pytest.fixture(scope="module")
def for_lambda(uv: str, python_version: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lambda")
    pack(folder, "--python", python_version)
    return folder


def test_the_same_sources_are_the_same_bytes(
    for_lambda: Path, python_version: str, tmp_path: Path
) -> None:
    pack(tmp_path, "--python", python_version)
    for function in FUNCTIONS:
        name = f"{function}.zip"
        assert (tmp_path / name).read_bytes() == (for_lambda / name).read_bytes()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_zip_has_what_its_function_imports_and_nothing_else(
    for_lambda: Path, function: str
) -> None:
    streams, is_client = "chat" in function or function in RELAYED, function != "health"
    chats = set() if function == "v1_models" else {"contract/reports"}
    if streams:
        chats = CHAT if function.startswith("chat") else RELAY
    with zipfile.ZipFile(for_lambda / f"{function}.zip") as archive:
        files = {PurePosixPath(entry.filename): entry for entry in archive.infolist()}
        binaries = {file: archive.read(file.as_posix()) for file in files if file.suffix == ".so"}
        bytecode = {file: archive.read(file.as_posix()) for file in files if file.suffix == ".pyc"}
    names = {file.parts[0] for file in files if len(file.parts) > 1} - {"__pycache__"}
    packages = PACKAGES | (CLIENT_PACKAGES if is_client else set())
    assert names == {"core", "handlers"} | packages | (STREAMING_PACKAGES if streams else set())
    sources = {file for file in files if file.suffix == ".py"}
    assert {file.stem for file in sources if file.parts[0] == "handlers"} == {"__init__", function}
    core = {file.relative_to("core") for file in sources if file.parts[0] == "core"}
    own = {file.with_suffix("").as_posix() for file in core if file.stem != "__init__"}
    assert own == CORE | (CLIENT if is_client else set()) | chats

    assert {file.as_posix().partition(".")[0] for file in binaries} == BINARIES
    assert all(content[18:20] == AARCH64 for content in binaries.values())
    compiled = {file.parent.parent / f"{file.name.partition('.')[0]}.py" for file in bytecode}
    assert compiled == sources
    assert all(content[4:8] == UNCHECKED_HASH for content in bytecode.values())
    others = {file.as_posix() for file in files} - {
        file.as_posix() for file in (*sources, *binaries, *bytecode)
    }
    assert others == {"certifi/cacert.pem", *(["run.sh"] if streams else [])}
    modes = {file.as_posix(): entry.external_attr >> 16 for file, entry in files.items()}
    assert modes.pop("run.sh", 0o100755) == 0o100755
    assert set(modes.values()) == {0o100644}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_zip_is_small(for_lambda: Path, function: str) -> None:
    assert (for_lambda / f"{function}.zip").stat().st_size < 2 * 2**20


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_is_imported_from_its_zip_alone(
    task_roots: Path, python: Path, function: str
) -> None:
    code = f"import sys, handlers.{function}; print(*sys.path, sep='\\n')"
    command = [str(python), "-I", "-S", "-c", f"import sys; sys.path.insert(0, '.'); {code}"]
    ended = subprocess.run(
        command, cwd=task_roots / function, env={}, capture_output=True, text=True, check=True
    )
    assert "site-packages" not in ended.stdout


def test_jwt_is_packed_on_demand(uv: str, python_version: str, tmp_path: Path) -> None:
    pack(tmp_path, "--python", python_version, "--jwt")
    with zipfile.ZipFile(tmp_path / "health.zip") as archive:
        assert "jwt/__init__.py" in archive.namelist()
        assert not any("cryptography" in name for name in archive.namelist())


def test_a_missing_uv_is_one_line_that_says_where_to_get_it(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "deploy/package.py"), "--output", str(tmp_path)]
    ended = subprocess.run(
        command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr == (
        "uv is not installed. Install it with: pipx install uv, or pip install uv\n"
    )


@pytest.mark.parametrize("function", ["models", "chat"])
def test_a_store_needs_packages_that_its_own_option_packs(
    task_roots: Path, python: Path, function: str
) -> None:
    code = f"""
import sys; sys.path.insert(0, ".")
from handlers.{function} import app
app.assembled
"""
    ended = subprocess.run(
        [str(python), "-I", "-S", "-c", code],
        cwd=task_roots / function,
        env={"RATE_LIMIT_STORAGE": "redis://localhost", "AWS_LAMBDA_FUNCTION_NAME": function},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "deploy/package.py --redis" in ended.stderr.splitlines()[-1]
