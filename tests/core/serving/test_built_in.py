"""The built-in model restarts whenever it ends, and leaves no process behind."""

import asyncio
import itertools
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from core.serving import built_in, server
from core.settings.schema import Settings
from tests.processes import running, wait_for, within

CHAT = {"message": "hi", "model": "smollm2:135m", "options": {"num_predict": 4}}
OWN = {"BUILT_IN_MODEL": "true", "PORT": "0", "WEB_PORT": "0", "LOG_FORMAT": "console"}


def engine_of(server: int) -> psutil.Process:
    (child,) = psutil.Process(server).children()
    return child


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=100) as client:
        yield client


@pytest.mark.timeout(400)
@pytest.mark.usefixtures("installed")
def test_it_is_started_again_and_the_errors_say_what_happened(client: httpx.Client) -> None:
    with running("-m", "handlers", **OWN) as process:
        url = wait_for(process.stdout, "Listening for the API on ")

        def chat() -> httpx.Response:
            return client.post(f"{url}/api/chat", json=CHAT)

        assert chat().json()["success"] is True
        for _ in range(2):
            engine = engine_of(process.pid)
            engine.kill()
            wait_for(process.stdout, "The built-in model ended (Killed)")
            told = chat()
            assert told.status_code == 500
            assert told.json()["error"].startswith(
                "Ollama connection error: the built-in model has stopped, and is being restarted"
            )
            wait_for(process.stdout, "The built-in model answers again")
            assert chat().json()["success"] is True
            assert not psutil.pid_exists(engine.pid), "a zombie is left"
        last = engine_of(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == -signal.SIGTERM
        assert within(20, lambda: not last.is_running())


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("installed")
def test_the_server_ends_while_it_is_being_started_again(client: httpx.Client) -> None:
    with running("-m", "handlers", **OWN) as process:
        url = wait_for(process.stdout, "Listening for the API on ")
        assert client.post(f"{url}/api/chat", json=CHAT).status_code == 200
        engine_of(process.pid).kill()
        wait_for(process.stdout, "The built-in model ended (Killed)")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == -signal.SIGTERM


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("installed")
def test_it_gets_no_headers_for_a_tunnel(client: httpx.Client) -> None:
    headers = '{"Host": "ollama.example.com", "X-Tunnel-Token": "secret"}'
    with running("-m", "handlers", **OWN, OLLAMA_HEADERS=headers) as process:
        url = wait_for(process.stdout, "Listening for the API on ")
        assert client.post(f"{url}/api/chat", json=CHAT).json()["success"] is True


@pytest.mark.usefixtures("installed")
def test_a_model_that_is_frozen_does_not_hold_up_the_end(client: httpx.Client) -> None:
    longest_s = Settings().shutdown_grace_s + server.LAST_WORDS_S + built_in.END_S
    assert longest_s < 9.6, "docker stop kills after 10 s"
    with running("-m", "handlers", **OWN, SHUTDOWN_GRACE_S="0.1") as process:
        url = wait_for(process.stdout, "Listening for the API on ")
        assert client.post(f"{url}/api/chat", json=CHAT).status_code == 200
        engine = engine_of(process.pid)
        engine.suspend()
        with ThreadPoolExecutor(1) as thread:
            chat = thread.submit(client.post, f"{url}/api/chat", json=CHAT)
            stats = f"{url}/api/stats"
            within(20, lambda: client.get(stats).json()["queue"]["running"] == 1)
            process.send_signal(signal.SIGTERM)
            assert chat.result().json()["error"].startswith("The server is stopping")
        assert process.wait(timeout=60) == -signal.SIGTERM
        assert not engine.is_running()


def test_a_model_that_cannot_start_fails_the_start_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise ImportError")
    with running("-m", "handlers", **OWN, PYTHONPATH=str(tmp_path)) as process:
        assert process.wait(timeout=20) == 1
        assert process.stderr
        told = process.stderr.read()
    assert "the built-in model is not installed" in told
    assert told.endswith("\nThe built-in model did not start\n")
    assert "Traceback" not in told


async def test_failures_in_a_row_are_tried_ever_more_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(built_in, "FIRST_DELAY_S", 0.1)
    monkeypatch.setattr(built_in, "MAX_DELAY_S", 0.4)
    launched: list[float] = []

    class Crashing(built_in.BuiltInModel):
        async def _launch(self) -> bool:
            launched.append(time.monotonic())
            self._process = await asyncio.create_subprocess_exec("true")
            return True

    model = Crashing()
    await model.start()
    while len(launched) < 5:
        await asyncio.sleep(0.01)
    await model.stop()
    gaps = [later - earlier for earlier, later in itertools.pairwise(launched)]
    assert all(gap >= least for gap, least in zip(gaps, (0.1, 0.2, 0.4, 0.4), strict=True))
