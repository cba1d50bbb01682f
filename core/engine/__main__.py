"""Serves the built-in model on loopback: `python -m core.engine [--port PORT] [--parent PID]`.

Once listening, it prints its URL as the only line on stdout; all else goes to stderr.
"""

import argparse
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType

import uvicorn

from core.engine.app import create_app
from core.engine.llama import Llama
from core.engine.model import NAME, ModelUnavailable

PARENT_POLL_S = 1
GRACE_S = 1
"""How long answers in progress may take to finish at shutdown."""


class Server(uvicorn.Server):
    """A uvicorn server that exits with its parent process if it has one, and not before."""

    def __init__(self, config: uvicorn.Config, parent: int | None) -> None:
        """Serve until a signal arrives, or `parent` is no longer the parent process."""
        super().__init__(config)
        self._parent = parent
        if parent is not None:
            threading.Thread(target=self._watch, daemon=True).start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Start to shut down, but leave Ctrl-C to the parent, which may have streams to finish."""
        if self._parent is None or sig != signal.SIGINT:
            super().handle_exit(sig, frame)

    def _watch(self) -> None:
        # An orphan is reparented immediately, even while its dead parent is a zombie.
        while os.getppid() == self._parent:
            time.sleep(PARENT_POLL_S)
        self.should_exit = True


def main() -> None:
    """Load the model and serve it; exit with 1 and one line on stderr if that fails."""
    parser = argparse.ArgumentParser(prog="python -m core.engine", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0: any free port")
    parser.add_argument("--parent", type=int, metavar="PID", help="exit with this parent process")
    arguments = parser.parse_args()
    interrupt = signal.SIG_DFL if arguments.parent is None else signal.SIG_IGN
    signal.signal(signal.SIGINT, interrupt)
    try:
        listener = socket.create_server(("127.0.0.1", arguments.port))
    except (OSError, OverflowError) as error:
        sys.exit(f"cannot listen on port {arguments.port}: {error}")
    sys.stderr.write(f"loading the built-in model {NAME} ...\n")
    try:
        llama = Llama()
    except ModelUnavailable as error:
        sys.exit(str(error))
    # llama.cpp has taken over both signals; uvicorn does so next.
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    config = uvicorn.Config(
        create_app(llama), log_level="warning", timeout_graceful_shutdown=GRACE_S
    )
    server = Server(config, arguments.parent)
    sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    with listener:
        server.run(sockets=[listener])


if __name__ == "__main__":
    main()
