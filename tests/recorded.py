"""Recorded answers of a real Ollama, whole and parsed."""

import json
import re
from pathlib import Path
from typing import Any

import httptools

FOLDER = Path(__file__).parent / "recordings"
MANIFEST: dict[str, dict[str, Any]] = json.loads((FOLDER / "manifest.json").read_text("utf-8"))


class Recorded:
    """One recorded answer: its bytes, and the parts an HTTP parser finds in them."""

    def __init__(self, name: str, *, chat: bool = False) -> None:
        """Read a recording; if `chat`, one of /api/generate as /api/chat would have sent it."""
        self.name = name
        self.raw = (FOLDER / f"{name}.http").read_bytes()
        self.request = MANIFEST.get(name, {})
        if chat and self.raw and self.request.get("path") == "/api/generate":
            self.raw = _in_chat_form(self.raw)
        self.ended: str = self.request.get("ended", "complete")
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


def said(text: str, **thinking: str) -> dict[str, Any]:
    """Return the field of an /api/chat line that contains the model's text."""
    return {"message": {"role": "assistant", "content": text, **thinking}}


def _in_chat_form(raw: bytes) -> bytes:
    """Reformat every whole line, and keep what was cut off."""
    head, _, body = raw.partition(b"\r\n\r\n")
    if b"Transfer-Encoding: chunked" not in head:
        body = _lines_in_chat_form(body)
        head = re.sub(rb"(?<=Content-Length: )\d+", b"%d" % len(body), head)
        return head + b"\r\n\r\n" + body
    chunks = []
    while (size := re.match(rb"([0-9a-f]+)\r\n", body)) and size[1] != b"0":
        end = size.end() + int(size[1], 16)
        if body[end : end + 2] != b"\r\n":
            break
        chunk = _lines_in_chat_form(body[size.end() : end])
        chunks.append(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        body = body[end + 2 :]
    return b"".join((head, b"\r\n\r\n", *chunks, body))


def _lines_in_chat_form(text: bytes) -> bytes:
    return b"\n".join(map(_line_in_chat_form, text.split(b"\n")))


def _line_in_chat_form(text: bytes) -> bytes:
    if b'"response":' not in text:
        return text
    line: dict[str, Any] = {}
    for name, value in json.loads(text).items():
        if name == "response":
            line |= said(value)
        elif name not in {"context", "thinking"}:
            line[name] = value
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode()


STREAMS = [name for name in MANIFEST if Recorded(name).is_stream]
