"""Recorded answers of a real Ollama, whole and parsed."""

import json
from pathlib import Path
from typing import Any

import httptools

FOLDER = Path(__file__).parent / "recordings"
MANIFEST: dict[str, dict[str, Any]] = json.loads((FOLDER / "manifest.json").read_text("utf-8"))


class Recorded:
    """One recorded answer: its bytes, and the parts an HTTP parser finds in them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.raw = (FOLDER / f"{name}.http").read_bytes()
        self.request = MANIFEST[name]
        self.ended: str = self.request["ended"]
        self.headers: dict[str, str] = {}
        self.body = b""
        self.status = 0
        if self.raw:
            parser = httptools.HttpResponseParser(self)
            parser.feed_data(self.raw)
            self.status = parser.get_status_code()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines of a streamed answer."""
        return [json.loads(line) for line in self.body.split(b"\n") if line]

    @property
    def is_stream(self) -> bool:
        return self.headers.get("Content-Type") == "application/x-ndjson"


STREAMS = [name for name in MANIFEST if Recorded(name).is_stream]
