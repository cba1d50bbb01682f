"""What ./start.sh says when the first minute goes wrong, always in one line."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import ROOT, free_ports

PYTHON = Path("/usr/bin/python3")
STRANGER = None if os.getuid() else 65534
"""A user who owns nothing here; None is already one who is not root."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with the scripts, and lock files that name no package."""
    folder = tmp_path / "project"
    (folder / "core/engine").mkdir(parents=True)
    shutil.copytree(ROOT / "deploy", folder / "deploy", ignore=shutil.ignore_patterns("npm"))
    shutil.copy(ROOT / "start.sh", folder)
    (folder / "requirements.txt").touch()
    (folder / "core/engine/requirements.txt").touch()
    return folder


def start(project: Path, user: int | None = None, /, *words: str, **environ: str) -> list[str]:
    """Run start.sh, which must fail, and return the lines of its stderr."""
    port, web_port = free_ports(2)
    own = {"PORT": str(port), "WEB_PORT": str(web_port), "OLLAMA_BASE_URL": "http://127.0.0.1:9"}
    ended = subprocess.run(
        ["./start.sh", *words],
        user=user,
        cwd=project,
        env={**os.environ, **own, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert ended.returncode == 1, ended.stderr
    return ended.stderr.splitlines()


def test_an_argument_is_refused_before_anything_is_installed(project: Path) -> None:
    (line,) = start(project, None, "--help")
    assert "settings are environment variables" in line
    assert not (project / ".venv").exists()


@pytest.mark.parametrize("name", ["PORT", "WEB_PORT"])
def test_a_port_that_is_taken(project: Path, name: str) -> None:
    with socket.create_server(("", 0)) as server:
        port = str(server.getsockname()[1])
        (line,) = start(project, **{name: port})
    assert line.startswith(f"cannot listen on port {port}: Address already in use; ")
    assert not (project / ".venv").exists()


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("HOST", "192.0.2.1", "Cannot assign requested address"),
        ("HOST", "host.invalid", ""),
        ("PORT", "http", "it is not a number from 1 to 65535"),
        ("WEB_PORT", "70000", "it is not a number from 1 to 65535"),
    ],
)
def test_an_address_that_is_not_one(project: Path, name: str, value: str, problem: str) -> None:
    (line,) = start(project, **{name: value})
    assert line.startswith("cannot listen on port ")
    assert f": {problem}" in line
    assert line.endswith("; change HOST, PORT or WEB_PORT")


def test_a_python_that_is_not_there_or_does_not_run(project: Path, tmp_path: Path) -> None:
    (line,) = start(project, PYTHON="/no/such/python")
    assert line.startswith('no Python found at "/no/such/python"')
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    (line,) = start(project, PYTHON=str(broken))
    assert "does not run" in line


@pytest.mark.parametrize("newest", ["3.14", "3.13", "3.12"])
def test_the_newest_python_is_used(project: Path, tmp_path: Path, newest: str) -> None:
    for version in ("3.12", "3.13", "3.14"):
        python = tmp_path / f"python{version}"
        answer = version > newest  # to the question whether it can make a .venv; it cannot do more
        python.write_text(f'#!/bin/sh\n[ "$2" = "import ensurepip" ] && exit {answer:d}\nexit 1\n')
        python.chmod(0o755)
    (line,) = start(project, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert line.startswith(f'"python{newest}" does not run')


@pytest.mark.timeout(300)
def test_a_venv_whose_python_is_gone_is_rebuilt(project: Path) -> None:
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/python").symlink_to("/no/such/python")
    assert start(project)[0] == "the Python that .venv uses is gone: setting it up again"
    assert (project / ".venv/bin/pip").exists()


@pytest.fixture
def shared(project: Path) -> Iterator[Path]:
    """Return a copy that every user may read and none but root may write."""
    if not PYTHON.exists():
        pytest.skip("a Python that any user may run is not installed: apt install python3")
    # Root may write everywhere, and the folders of pytest are for root alone.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        copy = shutil.copytree(project, Path(folder, "project"))
        copy.chmod(0o555)
        yield copy


def test_a_folder_that_cannot_be_written(shared: Path) -> None:
    (line,) = start(shared, STRANGER, PYTHON=str(PYTHON))
    assert line.startswith(f"cannot write to {shared}, ")


@pytest.mark.timeout(300)
def test_a_folder_with_everything_in_it_need_not_be_written(shared: Path) -> None:
    shared.chmod(0o755)
    subprocess.run([PYTHON, "-m", "venv", shared / ".venv"], check=True)
    (shared / ".venv/requirements.txt").touch()  # installed
    (shared / "handlers").mkdir()
    (shared / "handlers/__main__.py").write_text("import sys; sys.exit('serving')")
    shared.chmod(0o555)
    assert start(shared, STRANGER, PYTHON=str(PYTHON)) == ["serving"]
    (shared / "requirements.txt").write_text("a newer one")
    (line,) = start(shared, STRANGER, PYTHON=str(PYTHON))
    assert line.startswith(f"cannot write to {shared}/.venv, ")


@pytest.mark.timeout(300)
def test_an_index_that_cannot_be_reached(project: Path) -> None:
    (project / "requirements.txt").write_text(f"anyio==4.10.0 --hash=sha256:{'0' * 64}\n")
    lines = start(project, PIP_INDEX_URL="http://127.0.0.1:9/", PIP_RETRIES="0")
    assert lines[-1].startswith("cannot install requirements.txt. Is the package index reachable?")


def test_a_hangup_before_the_server_can_handle_it_does_not_end_it(project: Path) -> None:
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/python").symlink_to(sys.executable)
    (project / ".venv/requirements.txt").touch()  # installed
    (project / "handlers").mkdir()
    (project / "handlers/__main__.py").write_text(
        "import signal, sys; sys.exit(signal.getsignal(signal.SIGHUP).name)"
    )
    assert start(project)[-1] == "SIG_IGN"
