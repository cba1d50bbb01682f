import asyncio
import gc
import threading
from time import monotonic
from weakref import ref

import pytest

from core import moment


class Once:
    def __init__(self) -> None:
        self.called = asyncio.Event()

    def late(self) -> None:
        assert not self.called.is_set()
        self.called.set()


async def test_what_is_not_over_is_late_once() -> None:
    first, second = Once(), Once()
    moment.begin(first)
    await first.called.wait()
    moment.begin(second)
    await second.called.wait()
    moment.over(first)  # too late, and no harm


async def test_what_is_over_is_not_late_and_not_kept() -> None:
    over, other = Once(), Once()
    moment.begin(over)
    moment.begin(other)
    moment.over(over)
    await other.called.wait()
    assert not over.called.is_set()
    gone = ref(over)
    del over
    gc.collect()
    assert gone() is None


async def test_each_is_late_at_its_own_time() -> None:
    late = list[str]()
    done = asyncio.Event()

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def late(self) -> None:
            late.append(self.name)
            if self.name == "last":
                done.set()

    start = monotonic()
    over, moved = Named("over"), Named("moved")
    moment.at(start + 0.3, Named("last"))
    moment.at(start + 0.1, Named("first"))
    moment.at(start + 0.05, over)
    moment.at(start + 0.05, moved)
    moment.at(start + 0.2, moved)
    moment.over(over)
    await done.wait()
    assert late == ["first", "moved", "last"]
    assert monotonic() >= start + 0.3


async def test_what_is_past_is_late_at_once() -> None:
    once = Once()
    moment.at(monotonic() - 1, once)
    async with asyncio.timeout(5):
        await once.called.wait()


def test_each_event_loop_has_its_own() -> None:
    async def wait() -> None:
        once = Once()
        moment.begin(once)
        await once.called.wait()

    async def leave() -> None:
        moment.begin(Once())

    asyncio.run(leave())
    asyncio.run(wait())


def test_the_running_loop_is_the_one_that_asyncio_knows() -> None:
    async def check() -> None:
        assert moment.running_loop() is asyncio.get_running_loop()

    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    for loop in (first, second, first):
        loop.run_until_complete(check())
    for loop in (first, second):
        loop.close()
    with pytest.raises(RuntimeError, match="no running event loop"):
        moment.running_loop()


async def test_one_that_fails_does_not_keep_the_others_from_being_called() -> None:
    failures = list[str]()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: failures.append(str(context["exception"])))
    once = Once()

    class Broken:
        def late(self) -> None:
            raise ValueError("broken")

    moment.begin(Broken())
    moment.begin(once)
    await once.called.wait()
    assert failures == ["broken"]


async def test_a_loop_in_another_thread_does_not_disturb() -> None:
    over, other = Once(), Once()

    async def elsewhere() -> None:
        once = Once()
        moment.begin(once)
        await once.called.wait()

    moment.begin(over)
    thread = threading.Thread(target=asyncio.run, args=(elsewhere(),))
    thread.start()
    thread.join()
    moment.over(over)
    moment.begin(other)
    await other.called.wait()
    assert not over.called.is_set()
