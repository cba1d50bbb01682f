"""The side of AWS Lambda that a sandbox talks to: events out, answers in."""

import json
import time
from dataclasses import dataclass, field
from email.message import Message
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from subprocess import Popen
from threading import Thread
from typing import Any, Self

WAIT_S = 30


@dataclass
class Answer:
    """What a sandbox has posted, or is posting."""

    kind: str
    """`response` or `error`."""
    headers: Message
    pieces: SimpleQueue[bytes] = field(default_factory=SimpleQueue)
    """The body, as it arrives; an empty piece is its end."""

    def read(self) -> bytes:
        return b"".join(iter(partial(self.pieces.get, timeout=WAIT_S), b""))

    def json(self) -> Any:
        return json.loads(self.read())


class RuntimeAPI(ThreadingHTTPServer):
    """The Runtime API of one sandbox, on loopback."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.events: SimpleQueue[tuple[bytes, float] | None] = SimpleQueue()
        self.answers: SimpleQueue[Answer] = SimpleQueue()
        self.sandbox: Popen[str] | None = None
        """The process that polls for events, once it has started."""
        self._thread = Thread(target=partial(self.serve_forever, poll_interval=0.01))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.events.put(None)  # for a sandbox that still waits for the next one
        self.shutdown()
        self._thread.join()
        self.server_close()

    def invoke(self, event: object, timeout_s: float = 30) -> Answer:
        """Pass `event` to the sandbox, and return its answer as soon as it begins."""
        self.events.put((json.dumps(event).encode(), timeout_s))
        return self.answers.get(timeout=WAIT_S)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RuntimeAPI

    def do_GET(self) -> None:
        event = self.server.events.get() if self.path.endswith("/invocation/next") else None
        if event is None:
            self.close_connection = True
            return
        body, timeout_s = event
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Lambda-Runtime-Aws-Request-Id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd")
        self.send_header("Lambda-Runtime-Deadline-Ms", str(int((time.time() + timeout_s) * 1000)))
        self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:1:f:x")
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        answer = Answer(self.path.rpartition("/")[2], self.headers)
        self.server.answers.put(answer)
        if self.headers["Transfer-Encoding"] == "chunked":
            while size := int(self.rfile.readline(), 16):
                answer.pieces.put(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
        elif length := int(self.headers["Content-Length"]):
            answer.pieces.put(self.rfile.read(length))
        answer.pieces.put(b"")
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - it is called so
        pass
