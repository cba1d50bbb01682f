"""The engine as a process: what it prints and when it exits."""

import os
import signal
import subprocess
import sys
import time

import httpx
import pytest

from tests.processes import running, within

# A parent that starts the engine, prints its process id and URL, and runs until stdin ends.
PARENT = """
import os, subprocess, sys
engine = subprocess.Popen(
    [sys.executable, "-m", "core.engine", "--parent", str(os.getpid())],
    stdout=subprocess.PIPE, text=True,
)
print(engine.pid, engine.stdout.readline().strip(), flush=True)
sys.stdin.read()
os._exit(0)
"""


def listens(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/version", trust_env=False).is_success
    except httpx.ConnectError:
        return False


@pytest.mark.usefixtures("installed")
def test_ends_with_its_parent_and_leaves_ctrl_c_to_it() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout
    engine, url = parent.stdout.readline().split()
    try:
        os.kill(int(engine), signal.SIGINT)
        time.sleep(0.3)
        assert listens(url)
    finally:
        parent.communicate()
    assert within(30, lambda: not listens(url))


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait for the process to exit, and return its unread output."""
    process.wait(timeout=30)
    assert process.stdout
    assert process.stderr
    return process.stdout.read(), process.stderr.read()


@pytest.mark.usefixtures("installed")
def test_prints_only_its_url_and_ends_on_sigterm() -> None:
    with running("-m", "core.engine") as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        assert listens(url)
        process.terminate()
        output, errors = ended(process)
    assert output == ""
    assert errors == "loading the built-in model smollm2:135m ...\n"


@pytest.mark.usefixtures("installed")
@pytest.mark.skipif(sys.platform != "linux", reason="llama.cpp has libgomp's threads on Linux only")
def test_its_threads_do_not_spin_while_they_wait() -> None:
    """On a busy machine, an answer would take 40 times as long."""
    with running("-m", "core.engine", OMP_DISPLAY_ENV="true") as process:
        assert process.stdout
        assert process.stdout.readline()
        process.terminate()
        _, errors = ended(process)
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in errors


def test_says_what_to_install() -> None:
    without = "import sys; sys.modules['xllamacpp'] = None; import core.engine.__main__ as engine"
    with running("-c", f"{without}; engine.main()") as process:
        output, errors = ended(process)
    assert process.returncode == 1
    assert output == ""
    assert errors.splitlines()[-1].startswith("the built-in model is not installed. Install ")
    assert "Traceback" not in errors


def test_reports_that_the_port_is_in_use(engine_url: str) -> None:
    port = httpx.URL(engine_url).port
    with running("-m", "core.engine", "--port", str(port)) as process:
        _, errors = ended(process)
    assert errors.startswith(f"cannot listen on port {port}: ")
    assert errors.count("\n") == 1
    assert process.returncode == 1
