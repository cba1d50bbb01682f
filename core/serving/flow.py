"""What uvicorn keeps for each connection, in less memory."""

import asyncio
from collections import deque
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl

NO_PIPELINE = deque[Any]()
"""The queue of pipelined requests: one for all, since it stays empty. Each takes 600 bytes."""


class Signal:
    """What uvicorn uses of an `asyncio.Event`, which takes 760 bytes; a connection has two."""

    __slots__ = ("_is_set", "_waiters")

    def __init__(self, *, is_set: bool = False) -> None:
        self._is_set = is_set
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


class Flow(FlowControl):
    """Pauses whoever writes faster than the client reads, and the client while nobody reads."""

    __slots__ = ()

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.read_paused = self.write_paused = False
        self._is_writable_event = Signal(is_set=True)  # type: ignore[assignment]
