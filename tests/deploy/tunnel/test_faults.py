"""What a client of the functions gets while the path to Ollama is broken, and afterwards."""

import asyncio
import json
import re
import signal

import httpx
import pytest

from core.settings.schema import Settings
from handlers import chat, health
from tests.conftest import Serve
from tests.deploy.tunnel.conftest import Function
from tests.deploy.tunnel.loopback import Relay, Tunnel, edited, until
from tests.fake_ollama import FakeOllama, never_answers, tokens
from tests.gateway import Context

HELLO = {"message": "안녕하세요!"}
AT_ONCE_S = 5


async def ask(client: httpx.AsyncClient) -> tuple[int, str]:
    """Return the status and, for a failure, its text; it must not take long."""
    async with asyncio.timeout(AT_ONCE_S):
        answer = await client.post("/api/chat", json=HELLO)
    body = answer.json()
    assert body["success"] is (answer.status_code == 200)
    return answer.status_code, body.get("error", "")


async def test_a_tunnel_that_is_down_is_reported_immediately_and_works_when_it_is_back(
    function: Function, relay: Relay, fake: FakeOllama
) -> None:
    client = function(chat)
    status, error = await ask(client)
    assert status == 500
    assert error.startswith("Ollama connection error")
    assert "no tunnel" in error
    answer = await function(health).get("/api/health")
    assert answer.json()["ollama_status"] == "disconnected"
    async with relay.tunnel(httpx.URL(fake.url).port or 0):
        assert await ask(client) == (200, "")
    assert (await ask(client))[0] == 500


async def test_autossh_brings_a_tunnel_back_that_was_lost(
    function: Function, relay: Relay, tunnel: Tunnel
) -> None:
    client = function(chat)
    assert await ask(client) == (200, "")
    lost = tunnel.ssh()
    tunnel.signal(signal.SIGKILL)
    await until(lambda: tunnel.ssh() not in {lost, None} and relay.tunnel_is_up())
    assert await ask(client) == (200, "")


async def test_a_stream_whose_tunnel_is_lost_ends_with_its_error(
    relay: Relay, tunnel: Tunnel, fake: FakeOllama, serve: Serve
) -> None:
    fake.reply(tokens(["."] * 10_000, pace_s=0.01))
    url = await serve(**relay.settings)
    lines: list[dict[str, object]] = []
    async with (
        httpx.AsyncClient(trust_env=False, timeout=30) as client,
        client.stream("POST", f"{url}/api/chat/stream", json=HELLO) as answer,
    ):
        async for line in answer.aiter_lines():
            if not lines:
                tunnel.signal(signal.SIGKILL)
            lines.append(json.loads(line))
    assert lines[-1]["success"] is False
    assert lines[-1]["done"] is True


async def test_an_ollama_that_is_not_running_is_distinguished_from_a_tunnel_that_is_down(
    function: Function, tunnel: Tunnel, fake: FakeOllama
) -> None:
    client = function(chat)
    await fake.stop()
    async with asyncio.timeout(60):
        while "Is Ollama running" not in (error := (await ask(client))[1]):
            assert "or Ollama is not running there" in error  # a busy nginx knows no better
    assert "no tunnel" not in error
    await fake.start()
    assert await ask(client) == (200, "")


async def test_a_tunnel_that_hangs_is_a_504_and_works_on_when_it_goes_on(
    function: Function, tunnel: Tunnel
) -> None:
    client = function(chat)
    assert await ask(client) == (200, "")
    tunnel.signal(signal.SIGSTOP)
    client._transport._context = Context(remaining_ms=1500)  # type: ignore[attr-defined]
    status, error = await ask(client)
    assert status == 504
    assert error.startswith("Request timeout")
    tunnel.signal(signal.SIGCONT)
    client._transport._context = Context()  # type: ignore[attr-defined]
    assert await ask(client) == (200, "")


async def test_a_machine_that_comes_back_replaces_the_tunnel_that_it_left_behind(
    function: Function, relay: Relay, tunnel: Tunnel, fake: FakeOllama
) -> None:
    client = function(chat)
    assert await ask(client) == (200, "")
    left_behind = relay.sessions()
    tunnel.signal(signal.SIGSTOP)
    async with relay.tunnel(httpx.URL(fake.url).port or 0):
        await until(lambda: not left_behind & relay.sessions())
        await until(relay.tunnel_is_up)
        assert await ask(client) == (200, "")


async def test_an_ollama_that_is_too_slow_for_the_relay_is_distinguished_from_a_tunnel_that_is_down(
    function: Function, impatient_relay: Relay, fake: FakeOllama
) -> None:
    fake.reply(never_answers)
    async with impatient_relay.tunnel(httpx.URL(fake.url).port or 0):
        status, error = await ask(function(chat, **impatient_relay.settings))
    assert status == 500
    assert "no answer came through the tunnel in time" in error


def test_the_relay_is_more_patient_than_a_function() -> None:
    limits = re.findall(r"(?:read|send)_timeout (\d+)s", edited("relay/nginx.conf"))
    assert len(limits) == 3
    assert Settings().request_timeout_s < min(map(int, limits))


async def test_a_token_is_changed_without_a_failing_call(
    function: Function, relay: Relay, tunnel: Tunnel
) -> None:
    new = "f" * 32
    known = relay.folder / "ollama-relay/token.map"
    first = known.read_text("utf-8")
    old_client = function(chat)
    new_client = function(chat, ollama_headers={"X-Tunnel-Token": new})
    assert await ask(old_client) == (200, "")
    try:
        known.write_text(first + first.replace(relay.token, new), "utf-8")
        await relay.reload()
        assert await ask(old_client) == (200, "")
        assert await ask(new_client) == (200, "")
        known.write_text(first.replace(relay.token, new), "utf-8")
        await relay.reload()
        assert (await ask(old_client))[0] == 500
        assert await ask(new_client) == (200, "")
    finally:
        known.write_text(first, "utf-8")
        await relay.reload()
    assert await ask(old_client) == (200, "")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"ollama_client_cert": ""}, "wants a client certificate"),
        ({"ollama_headers": {"X-Tunnel-Token": "0" * 32}}, "wants another X-Tunnel-Token"),
    ],
)
async def test_the_errors_say_what_the_relay_wants(
    function: Function, tunnel: Tunnel, fake: FakeOllama, values: dict[str, object], says: str
) -> None:
    status, error = await ask(function(chat, **values))
    assert status == 500
    assert error.startswith("Ollama connection error")
    assert says in error
    assert not fake.requests
