"""What cancels a request: its client, its deadline or the server, and none taken for another."""

import asyncio
from typing import Any, Self, cast

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from core.context import Record, Recorder
from core.contract.errors import RequestTimeout
from core.serving.flow import Flow
from core.serving.waiting import Waiting


class Client:
    """Sends a request without a body, and leaves when told to."""

    def __init__(self, *, has_flow: bool) -> None:
        self.left = asyncio.Event()
        self.has_sent = False
        self.flow = Flow(cast("asyncio.Transport", self)) if has_flow else None

    def get_protocol(self) -> Self:
        return self

    def rest(self) -> None:
        pass

    async def receive(self) -> Message:
        if not self.has_sent:
            self.has_sent = True
            return {"type": "http.request", "body": b""}
        await self.left.wait()
        return {"type": "http.disconnect"}

    def leave(self) -> None:
        self.left.set()
        if self.flow:
            self.flow.end()


class Request(Waiting):
    """A request that is answered when told so."""

    answered = False

    def is_answered(self) -> bool:
        return self.answered


def begin(client: Client, timeout_s: float = 30) -> Request:
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": []}
    if client.flow:
        scope["flow"] = client.flow
    record: Record = Recorder().begin(scope)
    return Request(record, scope, client.receive, timeout_s)


@pytest.fixture(params=[True, False], ids=["uvicorn", "another server"])
def client(request: pytest.FixtureRequest) -> Client:
    return Client(has_flow=request.param)


@pytest.mark.parametrize("leaves_after_s", [0, 0.1])
async def test_a_client_that_leaves_cancels_its_request(
    client: Client, leaves_after_s: float
) -> None:
    waiting = begin(client)
    await waiting.receive()
    asyncio.get_running_loop().call_later(leaves_after_s, client.leave)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(20)
    waiting.stop()
    assert isinstance(waiting.reason(), ClientDisconnect)
    await asyncio.sleep(0)  # the cancellation is undone


async def test_a_deadline_does_not_interrupt_what_follows_a_disconnect(client: Client) -> None:
    waiting = begin(client, timeout_s=0.2)
    await waiting.receive()
    asyncio.get_running_loop().call_later(0.05, client.leave)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(20)
    waiting.late()  # the deadline, while something is released
    await asyncio.sleep(0)
    waiting.stop()
    assert isinstance(waiting.reason(), ClientDisconnect)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_client_may_leave_once_it_is_answered(client: Client) -> None:
    waiting = begin(client)
    await waiting.receive()
    waiting.late()
    waiting.answered = True
    client.leave()
    await settle()
    waiting.stop()
    assert waiting.reason() is None


async def test_nobody_watches_after_the_end(client: Client) -> None:
    waiting = begin(client)
    await waiting.receive()
    waiting.late()
    waiting.stop()
    client.leave()
    await settle()
    assert waiting.reason() is None


async def test_a_deadline_cancels(client: Client) -> None:
    waiting = begin(client, timeout_s=0.1)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(20)
    waiting.stop()
    assert isinstance(waiting.reason(), RequestTimeout)


async def test_a_deadline_hides_no_other_cancellation(client: Client) -> None:
    reasons = list[object]()

    async def run() -> None:
        waiting = begin(client, timeout_s=0.1)
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            reasons.append(waiting.reason())
        finally:
            waiting.stop()

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    late = asyncio.get_running_loop().create_future()
    original = Request._cancel

    def both(waiting: Request) -> None:
        original(waiting)
        task.cancel()
        late.set_result(None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Request, "_cancel", both)
        await late
    await task
    assert reasons == [None]
