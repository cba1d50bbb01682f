"""Waits for a request's body, for its client to leave, and for its time to be up."""

import asyncio
from enum import Enum, auto
from time import monotonic
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

from core import moment
from core.context import Record
from core.contract.errors import ApiError, BodyTimeout, RequestTimeout

if TYPE_CHECKING:
    from core.serving.flow import Flow

BODY_TIMEOUT_S = 30
"""How long a body may take to grow by MIN_PROGRESS_BYTES, or to end."""
MIN_PROGRESS_BYTES = 16 * 1024


class _Request(Enum):
    UNREAD = auto()
    ARRIVING = auto()
    ARRIVED = auto()
    GONE = auto()
    """The client disconnected before the answer was complete."""


_UNREAD, _ARRIVING, _ARRIVED, _GONE = _Request  # an enum's own attributes are slow


class Waiting:
    """Cancels the current task when its client leaves, or at a deadline.

    The deadlines are those of the body, until it has arrived, and of the whole answer. Answers of
    a few milliseconds need no deadline, and nobody to watch for a disconnect.
    """

    __slots__ = (
        *("_arrived", "_body_since", "_cancelled_before", "_flow", "_has_expired", "_is_slow"),
        *("_receive", "_record", "_request", "_task", "_timeout_s", "_watcher"),
    )

    def __init__(self, record: Record, scope: Scope, receive: Receive, timeout_s: float) -> None:
        """Wait until `stop`, but no longer than `timeout_s`."""
        self._record = record
        self._receive = receive
        self._timeout_s = timeout_s
        self._request = _UNREAD
        self._is_slow = self._has_expired = False
        self._flow: Flow | None = scope.get("flow")
        self._watcher: asyncio.Task[None] | None = None
        self._body_since = record.started_at
        self._arrived = 0  # bytes of the body since `_body_since`
        task = asyncio.current_task(moment.running_loop())
        assert task
        self._task = task
        self._cancelled_before = task.cancelling()
        moment.begin(self)

    @property
    def has_begun(self) -> bool:
        """Whether the application has asked for the body."""
        return self._request is not _UNREAD

    @property
    def has_arrived(self) -> bool:
        """Whether nothing more of the request will arrive."""
        return self._request is _ARRIVED or self._request is _GONE

    def is_answered(self) -> bool:
        """Return whether it no longer matters that the client leaves."""
        raise NotImplementedError

    async def receive(self) -> Message:
        """Receive a part of the body."""
        if self._request is _UNREAD:
            self._request = _ARRIVING
            if self._is_slow:  # after a slow check of the gate
                self._wait_for_body()
        message = await self._receive()
        if message["type"] == "http.request":
            if message.get("more_body"):
                self._arrived += len(message.get("body", b""))
                if self._arrived >= MIN_PROGRESS_BYTES:
                    self._wait_for_body()
            else:
                self._request = _ARRIVED
                if self._is_slow:
                    self._wait()
        return message

    def late(self) -> None:
        """Begin to wait in earnest; or end the wait, now that time is up."""
        if self._is_slow:
            self._cancel()
        else:
            self._is_slow = True
            self._wait()

    def client_left(self) -> None:
        """Cancel the application."""
        if not self._has_expired and not self.is_answered():
            self._request = _GONE
            self._cancel()

    def stop(self) -> None:
        """Stop waiting."""
        moment.over(self)
        if self._flow:
            self._flow.unwatch(self)
        if self._watcher:
            self._watcher.cancel()
            self._watcher = None  # its traceback refers to this object: leave no cycle

    def reason(self) -> ApiError | ClientDisconnect | None:
        """Return why this cancelled the task, and undo it; None if something else did it, too."""
        if not self._has_expired or self._task.uncancel() > self._cancelled_before:
            return None
        if self._request is _GONE:
            return ClientDisconnect()
        if self._request is _ARRIVING and self._body_due_at < self._ends_at:
            return BodyTimeout(MIN_PROGRESS_BYTES, BODY_TIMEOUT_S)
        return RequestTimeout(self._timeout_s)

    @property
    def _ends_at(self) -> float:
        return self._record.started_at + self._timeout_s

    @property
    def _body_due_at(self) -> float:
        return self._body_since + BODY_TIMEOUT_S

    def _wait_for_body(self) -> None:
        self._arrived = 0
        self._body_since = monotonic()
        if self._is_slow:
            self._wait()

    def _wait(self) -> None:
        due_at = self._ends_at
        if self._request is _ARRIVING:
            due_at = min(due_at, self._body_due_at)
        moment.at(due_at, self)
        if self._request is _ARRIVED:  # a disconnect is the only thing that may follow
            if self._flow:
                self._flow.watch(self)
            else:
                self._watcher = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.client_left()

    def _cancel(self) -> None:
        if not self._has_expired:  # a second time would interrupt what the first has led to
            self._has_expired = True
            self._task.cancel()
