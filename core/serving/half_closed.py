"""Clients that have stopped sending but still read: `shutdown(SHUT_WR)` after a request.

A client that has gone looks the same until something is sent: only then does it reset the
connection. So meaningless bytes are sent as probes.
"""

import asyncio
import socket
from collections.abc import Callable

FIRST_PROBE_S = 0.02
"""An answer that is faster than this needs no probe."""
_WAITS_S = (0.01, 0.1, 1)
"""How long to wait between two checks; the last one repeats."""
_PROBE_AT = {0, 3, 6}
"""The checks that send a probe: a reset may be several hops away. Go accepts up to five 1xx."""


class HalfClosed:
    """Watches one connection, and aborts it once its client has gone."""

    def __init__(self, transport: asyncio.Transport, probe: Callable[[], bytes]) -> None:
        """Watch `transport`; `probe` returns meaningless bytes, or none if none may be sent."""
        self._transport = transport
        self._probe = probe
        self._looks = 0
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(FIRST_PROBE_S, self._look)

    def stop(self) -> None:
        """Stop watching."""
        self._timer.cancel()

    def _look(self) -> None:
        if self._transport.is_closing():
            return
        sock = self._transport.get_extra_info("socket")
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._transport.abort()
            return
        if self._looks in _PROBE_AT:
            self._transport.write(self._probe())
        wait_s = _WAITS_S[min(self._looks, len(_WAITS_S) - 1)]
        self._looks += 1
        self._timer = self._loop.call_later(wait_s, self._look)
