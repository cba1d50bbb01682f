"""What can be awaited without making a coroutine each time."""

from collections.abc import Generator


class _Done:
    def __await__(self) -> Generator[None]:
        return iter(())  # type: ignore[return-value] # a generator would be made each time


class _Pause:
    def __await__(self) -> Generator[None]:
        yield


DONE = _Done()
"""What is done already."""
PAUSE = _Pause()
"""The rest of a round of the event loop, as `asyncio.sleep(0)` waits for it."""
