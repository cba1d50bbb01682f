"""What can be awaited without making a coroutine each time."""

from collections.abc import Generator


class _Done:
    def __await__(self) -> Generator[None]:
        return iter(())  # type: ignore[return-value] # cheaper than a generator


class _Pause:
    def __await__(self) -> Generator[None]:
        yield


DONE = _Done()
"""For a function that has nothing to wait for, and whose result is awaited."""
PAUSE = _Pause()
"""Lets everything else that is ready run once, as `asyncio.sleep(0)` does."""
