from collections.abc import Awaitable

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from core.context import Record, Recorder
from core.contract.errors import BadRequest
from core.contract.responses import JSONResponse
from core.gate.checks import Check, GateMiddleware
from core.serving.exchange import ExchangeMiddleware


class Checks:
    """A check that passes at once, one that takes time, and what has happened, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def at_once(self, scope: Scope, record: Record) -> None:
        self.events.append("at once")
        if scope["path"] == "/refused":
            raise BadRequest("No")

    def later(self, scope: Scope, record: Record) -> Awaitable[None]:
        return self._later(scope, record)

    async def _later(self, scope: Scope, record: Record) -> None:
        self.events.append("later")
        if scope["path"] == "/refused-later":
            raise BadRequest("No")
        record.settle = self.settle

    async def settle(self, _: Record) -> None:
        self.events.append("settled")

    def gate(self, *checks: Check) -> ASGIApp:
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            self.events.append("answered")
            if scope["path"] == "/broken":
                raise ZeroDivisionError
            await JSONResponse({})(scope, receive, send)

        gate = GateMiddleware(answer, checks=checks)
        return ExchangeMiddleware(gate, timeout_s=30, recorder=Recorder())


@pytest.mark.parametrize(
    ("path", "status", "events"),
    [
        ("/", 200, ["at once", "later", "answered", "settled"]),
        ("/broken", 500, ["at once", "later", "answered", "settled"]),
        ("/refused", 400, ["at once"]),
        ("/refused-later", 400, ["at once", "later"]),
    ],
)
async def test_every_check_must_pass_and_what_has_begun_is_settled(
    path: str, status: int, events: list[str]
) -> None:
    checks = Checks()
    transport = httpx.ASGITransport(checks.gate(checks.at_once, checks.later))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get(path)).status_code == status
    assert checks.events == events
