"""What happened to a request: kept while it is served, then told to the log and the statistics."""

import random
import re
from collections.abc import Callable
from time import monotonic

import msgspec
from starlette.types import Scope

_WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class Record(msgspec.Struct, kw_only=True):
    """One request, without a word of what was said in it; times are in seconds."""

    request_id: str
    method: str
    path: str
    started_at: float
    client: str = ""
    model: str = ""
    status: int = 0
    """The HTTP status of the answer; 0 is none."""
    error: str = ""
    """The class of what went wrong, also behind an answer's start."""
    queued_s: float = 0
    first_token_s: float | None = None
    tokens: int = 0
    duration_s: float = 0

    def mark_first_token(self) -> None:
        """Remember that the model has begun to answer."""
        if self.first_token_s is None:
            self.first_token_s = monotonic() - self.started_at


class Recorder:
    """Keeps a record of every request, and hands it to `observers` when the request is over."""

    def __init__(self, *observers: Callable[[Record], None]) -> None:
        self.observers = observers
        self.in_flight = 0

    def begin(self, scope: Scope) -> Record:
        """Return the record of the request of `scope`, in whose state it is from now on."""
        wanted = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        well_formed = _WELL_FORMED_ID.fullmatch(wanted.decode("latin-1"))
        record = Record(
            request_id=well_formed[0] if well_formed else f"{random.getrandbits(64):016x}",
            method=scope["method"],
            path=scope["path"],
            started_at=monotonic(),
        )
        scope.setdefault("state", {})["record"] = record
        self.in_flight += 1
        return record

    def end(self, record: Record, scope: Scope) -> None:
        """Complete `record` and hand it on."""
        if client := scope["state"].get("client"):
            record.client = client.name
        self.in_flight -= 1
        record.duration_s = monotonic() - record.started_at
        for observe in self.observers:
            observe(record)
