"""A Redis server for tests."""

import os
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from tests.programs import free_ports


class RedisServer:
    """A redis-server from the system package, on a free port."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        (self.port,) = free_ports(1)
        self.url = f"redis://127.0.0.1:{self.port}"
        self._command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1"]
        self._command += ["--save", "", "--dir", str(directory), *arguments]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        while self._process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)) as probe:
                probe.sendall(b"PING\r\n")
                if probe.recv(64).startswith((b"+PONG", b"-NOAUTH")):
                    return
            time.sleep(0.01)
        raise RuntimeError("redis-server did not start")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def signal(self, number: int) -> None:
        os.kill(self._process.pid, number)
