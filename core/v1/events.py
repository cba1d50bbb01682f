"""Server-sent events in transit: whole events, as bytes, and what the last one says."""

from collections.abc import Iterator
from typing import Any

import msgspec

from core.contract.errors import OllamaError
from core.ollama.failures import failure, not_ollama
from core.v1.apis import Answer, Api, Usage

MAX_EVENT_BYTES = 64 * 2**20
_STARTS = (b"data: ", b"event: ", b":")
# Unescaped quotes cannot stand within a JSON string.
_USAGE = b'"choices":[]'
_ERROR = b'"error"'
_decode = msgspec.json.Decoder(Answer).decode


class EventReader:
    """Cuts a stream into whole events, and finds its end, its usage and its failure."""

    def __init__(self, api: Api, *, wants_usage: bool) -> None:
        """Omit the chunk with the usage unless the client asked for it."""
        self.complete = False
        """Whether the last event of a whole answer has been read."""
        self.usage: Usage | None = None
        """None until an event reports it."""
        self._api = api
        self._wants_usage = wants_usage
        self._rest: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the whole events that `data` completes, as one block.

        Raises:
            OllamaError: an event reports a failure, or is larger than any; those before it have
                been yielded.
        """
        if self.complete:
            return
        cut = self._cut(data)
        if not cut:
            self._keep(data)
            return
        block, rest = b"".join((*self._rest, data[:cut])), data[cut:]
        self._rest, self._size = [], 0
        self._keep(rest)
        end = self._end_of_ordinary(block)
        if end < len(block):
            yield from self._feed_event_by_event(block[:end], block[end:])
        else:
            yield block

    def _end_of_ordinary(self, block: bytes) -> int:
        """Return where in `block` the events begin that say something about the answer's end.

        Only a failure may have ordinary events behind it: a parser's does not stop the model.
        Looking at each event costs more than the rest of a relay.
        """
        if not block.startswith(_STARTS):
            return 0
        end = len(block)
        while end:
            start = _start_of_event(block, end - len(b"\n\n"))
            event = block[start:end]
            if event.strip() and not event.startswith(b":") and not self._is_special(event):
                break
            end = start
        error = block.find(_ERROR, 0, end)
        return end if error < 0 else _start_of_event(block, error)

    def _cut(self, data: bytes) -> int:
        """Return where the last whole event in `data` ends; 0 if none does."""
        end = data.rfind(b"\n\n") + 1
        if not end and data.startswith(b"\n") and self._rest and self._rest[-1].endswith(b"\n"):
            return 1  # the blank line came in two reads
        return end + 1 if end else 0

    def _keep(self, data: bytes) -> None:
        if not data:
            return
        self._rest.append(data)
        self._size += len(data)
        if self._size > MAX_EVENT_BYTES:
            raise OllamaError(f"an event of the answer exceeds {MAX_EVENT_BYTES} bytes")

    def _is_special(self, event: bytes) -> bool:
        return (
            _USAGE in event
            or _ERROR in event
            or any(end in event for end in (*self._api.ends, b"event: message_delta\n"))
        )

    def _feed_event_by_event(self, ordinary: bytes, block: bytes) -> Iterator[bytes]:
        passed = [ordinary] if ordinary else []
        try:
            for event in block.split(b"\n\n"):
                if event.strip() and self._passes(event):
                    passed.append(event + b"\n\n")
                if self.complete:
                    break
        finally:
            if passed:
                yield b"".join(passed)

    def _passes(self, event: bytes) -> bool:
        """Note what `event` says; return whether the client should get it."""
        data = event.partition(b"data: ")[2]
        if not data:
            return event.startswith(b":")
        if data.startswith((b'{"error"', b'{"type":"error"')):
            raise _failure(data)
        self.complete = event.startswith(self._api.ends)
        reports = self.complete or _USAGE in data or event.startswith(b"event: message_delta")
        if not reports or data.startswith(b"[DONE]"):
            return True
        try:
            answer = _decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise not_ollama() from None
        usage = answer.usage or (answer.response and answer.response.usage)
        if usage:
            self.usage = usage
        return self._wants_usage or _USAGE not in data


def _start_of_event(block: bytes, at: int) -> int:
    before = block.rfind(b"\n\n", 0, at)
    return before + len(b"\n\n") if before >= 0 else 0


def error_text(body: bytes) -> str | None:
    """Return the text of a failure in OpenAI's, Anthropic's or Ollama's shape; None without one."""
    try:
        error = msgspec.json.decode(body, type=_Failure).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    text = error.get("message") if isinstance(error, dict) else error
    return text if isinstance(text, str) else None


class _Failure(msgspec.Struct):
    error: str | dict[str, Any] | None = None


def _failure(data: bytes) -> Exception:
    text = error_text(data)
    return not_ollama() if text is None else failure(text)
