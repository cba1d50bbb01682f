"""uvicorn's HTTP protocol for this API: connections from their start to their end."""

import asyncio
from functools import lru_cache
from time import monotonic
from typing import Any

from starlette.types import Scope

from core import moment
from core.context import Record
from core.contract.errors import ApiError
from core.serving.connections import Connections, limit_unread
from core.serving.cycle import Cycle
from core.serving.flow import Flow
from core.serving.half_closed import HalfClosed
from core.serving.reading import Reader
from core.serving.refusals import REFUSED_S, last_answer, log_refusal

KEEP_ALIVE_S = 125
"""Windows PowerShell 5.1 reuses connections for 100 s; uvicorn's 5 s would race with it."""
STRANGER_KEEP_ALIVE_S = 10
"""The same for a connection that never had a request admitted by the gate."""
WRITE_TIMEOUT_S = 60
"""How long a client may leave its answer unread before Linux drops the connection."""

_shared = lru_cache(lambda server: server)
"""Every connection has an equal one, of 200 bytes."""


class Protocol(Reader):
    """Runs requests, limits the time between them, and answers malformed HTTP in JSON."""

    __slots__ = ("_half_closed", "_known", "_limits")
    # CPython stores up to 30 attributes compactly: more would double a connection's memory.

    def __init__(self, *, limits: Connections, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._limits = limits
        self._half_closed: HalfClosed | None = None
        self._known = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for the first request."""
        super().connection_made(transport)
        self.flow = Flow(transport)
        self.server = _shared(self.server)
        limit_unread(transport, WRITE_TIMEOUT_S)
        self._known = self._limits.is_trusted(self._host)
        if refusal := self._limits.add(self, self._host):
            self._log(refusal)
            self._turn_away(refusal)
        else:
            self.await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._limits.remove(self)
        moment.over(self)
        self.end_head()
        if self._half_closed:
            self._half_closed.stop()
            self._half_closed = None
        super().connection_lost(exc)
        self.flow.end()

    def close_idle(self, refusal: ApiError) -> None:
        """Close the connection; its first request may be on its way, and gets `refusal`."""
        if self.cycle:
            self.transport.close()
        else:
            self._turn_away(refusal)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """Keep the connection of a client that awaits its answer: it may still read.

        TLS has no half-closed connections, and HTTP/1.0 no harmless bytes for a probe. Proxies
        that speak HTTP/1.0, such as nginx, close the whole connection instead.
        """
        cycle = self.cycle
        if (
            self.is_idle()
            or cycle.more_body
            or self.scheme == "https"
            or cycle.scope["http_version"] == "1.0"
        ):
            return None
        cycle.keep_alive = False
        self._half_closed = HalfClosed(self.transport, cycle.probe)
        return True

    def begin(self, scope: Scope) -> None:
        """Start the request in `scope`."""
        keep_alive = scope["http_version"] != "1.0" and self.parser.should_keep_alive()
        self.cycle = cycle = Cycle(self, scope, keep_alive=keep_alive)
        task = self.loop.create_task(cycle.run(self.app), name="request")
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)
        self._limits.begin(self)

    def on_response_complete(self) -> None:
        """Start waiting for the next request, or for the rest of this one."""
        self.server_state.total_requests += 1
        record: Record | None = self.cycle.scope["state"].get("record")
        self._known = self._known or bool(record and record.let_in)
        self._limits.end(self, known=self._known)
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        self.await_request()
        self.await_rest()

    def late(self) -> None:
        """Close the connection, unless a request is in progress or on its way."""
        if self.is_idle() and (not self.in_head or self.cycle.more_body):
            self.transport.close()

    def await_request(self) -> None:
        """Start waiting for the next request."""
        keep_s = KEEP_ALIVE_S if self._known else STRANGER_KEEP_ALIVE_S
        moment.at(monotonic() + keep_s, self)

    @property
    def _host(self) -> str:
        return self.client[0] if self.client else ""

    def refuse(self, error: ApiError) -> None:
        """Stop reading, and answer with `error` unless an earlier request's answer is due."""
        if self.refused or self.transport.is_closing():
            return
        self._log(error)
        if not self.is_idle():
            if self.cycle.response_started or not self.cycle.more_body:
                self.refused = True
                self.cycle.keep_alive = False
                return
            self.cycle.disconnected = True  # the application must not answer too
            self.cycle.message_event.set()
        self._turn_away(error)

    def _turn_away(self, error: ApiError) -> None:
        """Answer with `error` and stop reading, but let the client read it if there is room."""
        self.refused = True
        self.transport.write(last_answer(error, self.url))
        if not self._limits.may_linger(self):
            self.transport.close()
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(REFUSED_S, self.transport.close)

    def _log(self, error: ApiError) -> None:
        log_refusal(error, self._host, is_proxy=self._limits.is_trusted(self._host))
