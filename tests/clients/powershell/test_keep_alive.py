"""How long a connection is kept for the next call."""

import asyncio

import pytest

from core.serving import protocol, reading
from tests.clients.powershell.wire import WINDOWS_POWERSHELL, Call, Connection
from tests.conftest import Serve


async def test_a_connection_may_idle_for_longer_than_windows_powershell_keeps_it(
    monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    assert protocol.KEEP_ALIVE_S >= 120
    monkeypatch.setattr(protocol, "STRANGER_KEEP_ALIVE_S", 0.2)
    call = Call("/api/models", method="GET")
    async with Connection(WINDOWS_POWERSHELL, await serve()) as connection:
        assert (await connection.call(call)).status == 200
        await asyncio.sleep(0.5)
        assert (await connection.call(call)).status == 200
        assert connection.opened == 1


async def test_the_time_for_a_request_s_head_does_not_run_while_a_connection_idles(
    monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    monkeypatch.setattr(reading, "HEAD_TIMEOUT_S", 0.5)
    call = Call("/api/health", method="GET")
    async with Connection(WINDOWS_POWERSHELL, await serve()) as connection:
        assert (await connection.call(call)).status == 200
        await asyncio.sleep(1)
        assert (await connection.call(call)).status == 200
        assert connection.opened == 1
