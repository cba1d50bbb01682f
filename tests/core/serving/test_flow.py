import asyncio
from typing import Any, cast

from core.serving.flow import Flow, Signal


async def test_a_signal_lets_all_go_on_that_wait_until_it_is_cleared() -> None:
    signal = Signal()
    waiting = [asyncio.create_task(signal.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    signal.set()
    await asyncio.wait(waiting)
    assert [task.cancelled() for task in waiting] == [False, True, False]
    await signal.wait()
    signal.clear()
    late = asyncio.create_task(signal.wait())
    await asyncio.sleep(0)
    assert not late.done()
    signal.set()
    await late


class Transport:
    """Notes what a flow does to it, and is its own protocol."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def get_protocol(self) -> Any:
        return self

    def rest(self) -> None:
        self.done.append("rest")

    def pause_reading(self) -> None:
        self.done.append("pause")

    def resume_reading(self) -> None:
        self.done.append("resume")


class Watcher:
    left = 0

    def client_left(self) -> None:
        self.left += 1


async def test_a_client_that_was_paused_is_read_again_so_that_its_leaving_is_seen() -> None:
    transport, watcher = Transport(), Watcher()
    flow = Flow(cast("asyncio.Transport", transport))
    flow.pause_reading()
    flow.pause_reading()
    flow.watch(watcher)
    assert transport.done == ["pause", "rest", "resume"]
    flow.end()
    assert watcher.left == 1
    late = Watcher()
    flow.watch(late)
    assert late.left == 1


async def test_the_end_of_a_request_leaves_the_watcher_of_the_next_one() -> None:
    flow = Flow(cast("asyncio.Transport", Transport()))
    first, second = Watcher(), Watcher()
    flow.watch(first)
    flow.watch(second)
    flow.unwatch(first)
    flow.end()
    assert (first.left, second.left) == (0, 1)


async def test_writers_wait_for_a_client_that_does_not_read() -> None:
    flow = Flow(cast("asyncio.Transport", Transport()))
    await flow.drain()
    for let_go_on in (flow.resume_writing, flow.end):
        flow.pause_writing()
        flow.pause_writing()
        writer = asyncio.create_task(flow.drain())
        await asyncio.sleep(0)
        assert flow.write_paused
        assert not writer.done()
        let_go_on()
        await writer
        assert not flow.write_paused
