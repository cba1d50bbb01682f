"""Reports the service's state to systemd: `sd_notify`, which sends datagrams to a socket."""

import socket
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic


class Notifier:
    """Sends to NOTIFY_SOCKET; without it, as outside systemd, does nothing."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        # As sd_watchdog_enabled(3) advises: twice as often as systemd requires.
        self._interval_s = int(environ.get("WATCHDOG_USEC", "0")) / 2_000_000
        self._next_at = 0.0

    def ready(self) -> None:
        """Report that the server accepts requests."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Report that the server is stopping, which may take SHUTDOWN_GRACE_S."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Report that the event loop runs, if a report is due."""
        if self._interval_s and monotonic() >= self._next_at:
            self._next_at = monotonic() + self._interval_s
            self._send("WATCHDOG=1")

    def _send(self, state: str) -> None:
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(state.encode(), self._address)
