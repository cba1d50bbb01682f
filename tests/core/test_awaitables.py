import asyncio

from core.awaitables import DONE, ENOUGH, ROUNDS, Cohort


async def test_what_is_done_lets_nobody_else_run() -> None:
    steps: list[str] = []
    asyncio.get_running_loop().call_soon(steps.append, "other")
    await DONE
    await DONE
    assert steps == []


async def test_a_cohort_waits_for_those_who_come_round_by_round() -> None:
    cohort = Cohort()
    steps: list[str] = []

    async def run(name: str, rounds: int) -> None:
        for _ in range(rounds):
            await asyncio.sleep(0)
        steps.append(f"{name} joins")
        await cohort.join()
        steps.append(f"{name} goes on")

    await asyncio.gather(run("a", 0), run("b", 0), run("c", 1), run("late", ROUNDS + 6))
    names = ("a", "b", "c")
    assert steps == [
        *(f"{name} joins" for name in names),
        *(f"{name} goes on" for name in names),
        *("late joins", "late goes on"),
    ]


async def test_a_cohort_waits_for_few_rounds() -> None:
    cohort = Cohort()
    waiting: list[asyncio.Future[None]] = []
    async with asyncio.timeout(10):
        while not any(future.done() for future in waiting):
            waiting.append(cohort.join())
            await asyncio.sleep(0)
    assert len(waiting) <= ROUNDS + 1


async def test_many_wait_for_nobody_else() -> None:
    cohort = Cohort()
    waiting = [cohort.join() for _ in range(ENOUGH)]
    await asyncio.sleep(0)
    cohort.join()
    await asyncio.sleep(0)
    assert all(future.done() for future in waiting)


async def test_a_task_that_is_cancelled_holds_up_nobody() -> None:
    cohort = Cohort()
    leaving, staying = [asyncio.ensure_future(cohort.join()) for _ in range(2)]
    leaving.cancel()
    async with asyncio.timeout(10):
        await staying
    assert leaving.cancelled()


def test_a_cohort_of_a_loop_that_has_ended_holds_up_no_other() -> None:
    cohort = Cohort()

    async def leave() -> None:
        cohort.join()

    async def join() -> None:
        async with asyncio.timeout(10):
            await cohort.join()

    asyncio.run(leave())
    asyncio.run(join())
