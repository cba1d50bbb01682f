"""What uvicorn keeps for each connection, in less memory."""

import asyncio
from collections import deque
from typing import Any, Protocol

NO_PIPELINE = deque[Any]()
"""The queue of pipelined requests: one for all, since it stays empty. Each takes 600 bytes."""


class Signal:
    """What uvicorn uses of an `asyncio.Event`, which takes 760 bytes."""

    __slots__ = ("_is_set", "_waiters")

    def __init__(self) -> None:
        self._is_set = False
        self._waiters: tuple[asyncio.Future[None], ...] = ()

    def set(self) -> None:
        """Let those who wait go on."""
        self._is_set = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def clear(self) -> None:
        """Let those who come wait."""
        self._is_set = False

    async def wait(self) -> None:
        """Return when it is set."""
        if self._is_set:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters += (waiter,)
        try:
            await waiter
        finally:
            self._waiters = tuple(other for other in self._waiters if other is not waiter)


class Watcher(Protocol):
    """Who wants to know that the client has left."""

    def client_left(self) -> None:
        """Act on it."""


class Flow:
    """Pauses whoever writes faster than the client reads, and the client while nobody reads.

    In place of uvicorn's `FlowControl`. It also says that the client has left: `receive` says so
    only to a task that waits for it, and such a task takes 1.3 KB.
    """

    __slots__ = ("_has_ended", "_transport", "_watcher", "_writable", "read_paused", "write_paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._writable: Signal | None = None
        self.read_paused = self.write_paused = self._has_ended = False
        self._watcher: Watcher | None = None

    async def drain(self) -> None:
        """Return when the client has read enough to be sent more."""
        if self._writable:
            await self._writable.wait()

    def pause_reading(self) -> None:
        """Let the client wait."""
        if not self.read_paused:
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Let the client go on."""
        if self.read_paused:
            self.read_paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """Let writers wait."""
        self.write_paused = True
        self._writable = self._writable or Signal()

    def resume_writing(self) -> None:
        """Let writers go on."""
        self.write_paused = False
        if self._writable:
            self._writable.set()
            self._writable = None

    def watch(self, watcher: Watcher) -> None:
        """Call `watcher.client_left()` once the client has left, unless `unwatch` comes first."""
        if self._has_ended:
            watcher.client_left()
            return
        self._watcher = watcher
        self._transport.get_protocol().rest()  # type: ignore[attr-defined] # it is a `Reader`
        self.resume_reading()  # or its leaving would go unseen

    def unwatch(self, watcher: Watcher) -> None:
        """Forget `watcher`, unless that of the connection's next request has taken its place."""
        if self._watcher is watcher:
            self._watcher = None

    def end(self) -> None:
        """Let whoever watches know that the client has left, and let writers go on."""
        self._has_ended = True
        self.resume_writing()
        if self._watcher:
            self._watcher.client_left()
