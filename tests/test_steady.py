import asyncio
import time

import pytest

from tests.steady import SteadyLoop


async def stalled() -> None:
    async with asyncio.timeout(0.3):
        for _ in range(3):
            time.sleep(0.2)  # noqa: ASYNC251 - the machine stalls
            await asyncio.sleep(0.01)


async def test_a_stall_ends_no_time_limit() -> None:
    assert isinstance(asyncio.get_running_loop(), SteadyLoop)
    await stalled()


def test_it_would_in_another_loop() -> None:
    with (
        asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner,
        pytest.raises(TimeoutError),
    ):
        runner.run(stalled())


async def test_a_time_limit_ends_where_nothing_stalls() -> None:
    before = time.monotonic()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 0.3)
    assert time.monotonic() - before >= 0.3
