"""Measures how long a hostile request delays another client's tokens, over real sockets.

    python -m tests.security.gaps [PART OF A NAME]

A fake Ollama, the gateway, and this program, which is both clients, are three processes. Each line
shows the longest time between two tokens while a request of `large` was checked, and next to it the
longest one in a time without such a request: the machine's own. Both are the shortest of several
tries, for what the request itself causes happens each time, unlike what a neighbour does.
"""

import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection
from threading import Event, Thread
from urllib.parse import urlsplit

from tests.processes import fake_ollama, running
from tests.security.large import LARGE, Large

MODEL = "smollm2:135m"
SETTINGS = {
    "DEFAULT_MODEL": MODEL,
    "REQUEST_TIMEOUT_S": "999",
    "MAX_CONCURRENT": "1",  # the hostile request does not reach the fake Ollama, and its own parser
    "QUEUE_TIMEOUT_S": "0.2",
}
PACE_S = 0.005
TOKENS = 40_000
QUIET_S = 0.3
STEP_S = 0.05
TRIES = range(5)
ANSWER_S = 120


@contextmanager
def gateway(**environ: str) -> Iterator[tuple[int, str]]:
    """Run the gateway as users do; yield its process ID and its URL."""
    with running("-m", "handlers", **environ, PORT="0", WEB_PORT="0", RATE_LIMIT="off") as process:
        assert process.stdout
        found = None
        while not found:
            line = process.stdout.readline()
            assert line, "it has ended"
            found = re.search(r"for the API on (http://[\d.:]+)", line)
        yield process.pid, found[1]


class Listener:
    """A client that reads a long stream, and notes when its tokens come."""

    def __init__(self, url: str) -> None:
        parsed = urlsplit(url)
        self._connection = HTTPConnection(parsed.hostname or "", parsed.port or 0)
        body = f'{{"message":"a","model":"{MODEL}"}}'
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", "/api/chat/stream", body, headers)
        self._longest = 0.0
        self._ended = False
        self._starts = Event()
        self._thread = Thread(target=self._read)
        self._thread.start()
        self._starts.wait()

    def reset(self) -> None:
        """Begin to measure."""
        self._longest = 0

    @property
    def longest_s(self) -> float:
        """The longest time between two tokens since `reset`."""
        assert not self._ended, "the stream was not long enough"
        return self._longest

    def close(self) -> None:
        """Stop reading."""
        if self._connection.sock:
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()

    def _read(self) -> None:
        self._connection.getresponse()
        gap_s, last = 0.0, time.monotonic()
        while (data := self._received()) != b"":
            now = time.monotonic()
            gap_s += min(now - last, 2 * STEP_S)  # more is a machine that stands still
            last = now
            self._longest = max(self._longest, gap_s)
            if data:
                gap_s = 0
                self._starts.set()
        self._ended = True

    def _received(self) -> bytes | None:
        """Return what arrives within STEP_S, if anything does; nothing at all at the end."""
        sock = self._connection.sock
        sock.settimeout(STEP_S)
        try:
            data = sock.recv(2**16)
        except TimeoutError:
            return None
        except OSError:
            return b""
        return b"" if data.endswith(b"\r\n0\r\n\r\n") else data


@contextmanager
def listening() -> Iterator[tuple[str, Listener]]:
    """Run everything, and listen; yield the gateway's URL and the listener."""
    text = " ".join(["a"] * TOKENS)
    with (
        fake_ollama("--pace", str(PACE_S), "--tokens", text) as ollama,
        gateway(OLLAMA_BASE_URL=ollama, **SETTINGS) as (_, url),
    ):
        listener = Listener(url)
        try:
            yield url, listener
        finally:
            listener.close()


def bytes_of(request: Large) -> bytes:
    """Return all of a request."""
    head = (
        f"POST {request.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(request.body)}\r\n\r\n"
    )
    return head.encode() + request.body


def send(url: str, request: bytes) -> int:
    """Send a request, and return its answer's status."""
    parsed = urlsplit(url)
    with socket.create_connection((parsed.hostname, parsed.port), ANSWER_S) as sock:
        sock.sendall(request)
        return int(sock.recv(2**16).split()[1])


def _main() -> None:
    wanted = " ".join(sys.argv[1:])
    with listening() as (url, listener):
        for name, request in LARGE.items():
            if wanted not in name:
                continue
            sent = bytes_of(request)
            quiet_ms = 1000 * min(_longest_s(listener, partial(time.sleep, QUIET_S)) for _ in TRIES)
            longest_ms = 1000 * min(_longest_s(listener, partial(send, url, sent)) for _ in TRIES)
            print(f"{longest_ms:7.0f} ms ({quiet_ms:.0f} ms without)  {request.path}: {name}")  # noqa: T201


def _longest_s(listener: Listener, act: Callable[[], object]) -> float:
    listener.reset()
    act()
    return listener.longest_s


if __name__ == "__main__":
    _main()
