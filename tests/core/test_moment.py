import asyncio
import gc
import threading
from weakref import ref

from core import moment


class Once:
    def __init__(self) -> None:
        self.called = asyncio.Event()

    def slow(self) -> None:
        assert not self.called.is_set()
        self.called.set()


async def test_a_callback_that_is_not_cancelled_is_called_once() -> None:
    first, second = Once(), Once()
    moment.unless_over(first.slow)
    await first.called.wait()
    moment.unless_over(second.slow)
    await second.called.wait()
    moment.over(first.slow)  # too late, and no harm


async def test_what_is_over_is_not_called_and_not_kept() -> None:
    over, other = Once(), Once()
    moment.unless_over(over.slow)
    moment.unless_over(other.slow)
    moment.over(over.slow)
    await other.called.wait()
    assert not over.called.is_set()
    gone = ref(over)
    del over
    gc.collect()
    assert gone() is None


def test_each_event_loop_has_its_own() -> None:
    async def wait() -> None:
        once = Once()
        moment.unless_over(once.slow)
        await once.called.wait()

    async def leave() -> None:
        moment.unless_over(Once().slow)

    asyncio.run(leave())
    asyncio.run(wait())


async def test_one_that_fails_does_not_keep_the_others_from_being_called() -> None:
    failures = list[str]()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(str(context["exception"])))
    once = Once()

    def fail() -> None:
        raise ValueError("broken")

    moment.unless_over(fail)
    moment.unless_over(once.slow)
    await once.called.wait()
    assert failures == ["broken"]


async def test_a_loop_in_another_thread_does_not_disturb() -> None:
    over, other = Once(), Once()

    async def elsewhere() -> None:
        once = Once()
        moment.unless_over(once.slow)
        await once.called.wait()

    moment.unless_over(over.slow)
    thread = threading.Thread(target=asyncio.run, args=(elsewhere(),))
    thread.start()
    thread.join()
    moment.over(over.slow)
    moment.unless_over(other.slow)
    await other.called.wait()
    assert not over.called.is_set()
