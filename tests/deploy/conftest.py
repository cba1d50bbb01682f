"""The zips for this machine's platform, and what runs them as AWS Lambda does."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from shutil import copy, copytree
from zipfile import ZipFile

import pytest

from tests.deploy.runtime_api import RuntimeAPI
from tests.fake_ollama import FakeOllama
from tests.programs import ROOT, SEARCH_PATH, npm_ci, program, started

LAMBDA_PYTHON = "3.13"
RUNTIME_CLIENT = ("awslambdaric", "simplejson", "snapshot-restore-py")

Sandbox = Callable[..., AbstractContextManager[RuntimeAPI]]
"""(function, variable=value ...) -> the Runtime API of a sandbox that runs the function."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let a test wait for the ten zips, which take minutes on a busy machine."""
    for item in items:
        if isinstance(item, pytest.Function) and "uv" in item.fixturenames:
            item.add_marker(pytest.mark.timeout(600))


@pytest.fixture(scope="session")
def uv() -> str:
    return program("uv", "pip install uv")


@pytest.fixture(scope="session")
def python(uv: str) -> Path:
    """The functions' Python if this machine has it, otherwise the tests' own."""
    found = subprocess.run(
        [uv, "python", "find", "--quiet", "--no-python-downloads", "--system", LAMBDA_PYTHON],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return Path(found.strip() or sys.executable)


@pytest.fixture(scope="session")
def python_version(python: Path) -> str:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    command = [str(python), "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def pack(output: Path, *options: str) -> None:
    """Run the packaging script."""
    subprocess.run(
        [sys.executable, ROOT / "deploy/package.py", "--output", output, *options],
        env={**os.environ, "PATH": SEARCH_PATH},
        stdout=subprocess.DEVNULL,
        check=True,
    )


@pytest.fixture(scope="session")
def zips(uv: str, python_version: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the zips for this machine's platform."""
    folder = tmp_path_factory.mktemp("zips")
    target = f"{platform.machine()}-manylinux2014"
    pack(folder, "--python", python_version, "--platform", target)
    return folder


@pytest.fixture(scope="session")
def redis_zips(uv: str, python_version: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, as `package.py --redis` packs them."""
    folder = tmp_path_factory.mktemp("redis-zips")
    target = f"{platform.machine()}-manylinux2014"
    pack(folder, "--python", python_version, "--platform", target, "--redis")
    return folder


@pytest.fixture(scope="session")
def task_roots(zips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each function unpacked under its name, as Lambda does."""
    return unpack(zips, tmp_path_factory.mktemp("var"))


def unpack(zips: Path, folder: Path) -> Path:
    for archive in zips.iterdir():
        with ZipFile(archive) as zip_file:
            for entry in zip_file.infolist():
                path = Path(zip_file.extract(entry, folder / archive.stem))
                path.chmod(entry.external_attr >> 16)
    return folder


@pytest.fixture(scope="session")
def runtime_client(uv: str, python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with awslambdaric, which polls for events and calls the handler."""
    folder = tmp_path_factory.mktemp("runtime")
    lock = (ROOT / "tests/requirements.txt").read_text("utf-8")
    locked = {entry.partition("==")[0]: entry for entry in re.split(r"\n(?=\S)", lock)}
    subprocess.run(
        [
            *(uv, "pip", "install", "--quiet", "--target", folder, "--python", python),
            *("--no-deps", "--require-hashes", "--requirements", "-"),
        ],
        input="\n".join(locked[name] for name in RUNTIME_CLIENT),
        text=True,
        check=True,
    )
    return folder


@pytest.fixture(scope="session")
def osls(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("osls")
    npm_ci(ROOT / "tests/deploy/npm", folder)
    return [program("node", "apt install nodejs"), str(folder / "node_modules/.bin/osls")]


@pytest.fixture(scope="session")
def service(redis_zips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything a deployment needs."""
    folder = tmp_path_factory.mktemp("service")
    copy(ROOT / "serverless.yml", folder)
    copytree(ROOT / "deploy", folder / "deploy")
    copytree(redis_zips, folder / "build")
    return folder


@pytest.fixture
def sandbox(python: Path, task_roots: Path, runtime_client: Path, fake: FakeOllama) -> Sandbox:
    """Run a function from its zip alone, by AWS' own runtime client, in front of the fake."""

    @contextmanager
    def sandbox(function: str, roots: Path = task_roots, **environ: str) -> Iterator[RuntimeAPI]:
        with RuntimeAPI() as api:
            environ = {
                "AWS_EXECUTION_ENV": f"AWS_Lambda_python{LAMBDA_PYTHON}",
                "AWS_LAMBDA_FUNCTION_NAME": f"ollama-web-api-dev-{function}",
                "AWS_LAMBDA_RUNTIME_API": api.address,
                "LAMBDA_TASK_ROOT": str(roots / function),
                "PYTHONPATH": str(runtime_client),
                "OLLAMA_BASE_URL": fake.url,
                "ANONYMOUS_CLIENTS": "0.0.0.0/0",
                **environ,
            }
            command = [str(python), "-S", "-m", "awslambdaric", f"handlers.{function}.handler"]
            with started(command, environ, cwd=roots / function) as process:
                api.sandbox = process
                yield api

    return sandbox
