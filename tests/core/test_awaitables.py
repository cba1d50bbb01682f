import asyncio

from core.awaitables import DONE, PAUSE


async def test_only_a_pause_lets_others_run_and_either_can_be_awaited_again() -> None:
    steps: list[str] = []
    asyncio.get_running_loop().call_soon(steps.append, "other")
    await DONE
    await DONE
    assert steps == []
    await PAUSE
    assert steps == ["other"]
    asyncio.get_running_loop().call_soon(steps.append, "other")
    await PAUSE
    assert steps == ["other", "other"]
