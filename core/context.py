"""The context of a request in progress: its caller, and what has happened so far."""

import random
import re
from collections.abc import Awaitable, Callable
from fnmatch import fnmatchcase
from http import HTTPStatus
from time import monotonic, time

import msgspec
from starlette.types import Scope

from core import moment
from core.awaitables import DONE, Cohort
from core.settings.networks import UNKNOWN

MAX_GATHERED = 64
"""How many ended requests wait to be observed, at the most."""

_UNKNOWN = str(UNKNOWN)
_OK = HTTPStatus.OK.value  # reading a member takes as long as calling a function
_WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


def _known(address: str) -> str:
    return "" if address == _UNKNOWN else address


def encodable(text: str) -> str:
    """Return `text` with lone surrogates escaped: UTF-8 cannot encode them.

    AWS may send them in a path, and settings that are no UTF-8 have them.
    """
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def fields_of(scope: Scope) -> dict[bytes, bytes]:
    """Return a request's headers by name, the first of each; cached in `scope`."""
    fields: dict[bytes, bytes] | None = scope.get("fields")
    if fields is None:
        fields = scope["fields"] = dict(reversed(scope["headers"]))
    return fields


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The client of a request: the unit of rate limits and of fair queueing."""

    id: str
    """`key:ci`, `jwt:<subject>` or `address:192.0.2.1`: unique, and safe to log."""
    name: str
    address: str
    rate: str | None = None
    """Overrides RATE_LIMIT."""
    concurrent: int | None = None
    """Overrides MAX_CONCURRENT_PER_CLIENT."""
    models: tuple[str, ...] | None = None
    """`fnmatch` patterns of the models it may see and use; None allows all."""
    tokens: str | None = None
    """The token budget of its key; None means no limit."""

    @classmethod
    def of(cls, scope: Scope) -> "Caller":
        """Return the caller of the request in `scope`; for use behind the gate."""
        caller = Record.of(scope).caller
        assert caller, "the gate lets no request through without one"
        return caller

    def may_use(self, model: str) -> bool:
        """Return whether the caller may see and use `model`.

        As in Ollama, case does not matter, and a name without a tag has the tag `latest`. A
        pattern's `*` stops at a slash, so `qwen*` matches nothing from another registry.
        """
        if self.models is None:
            return True
        name = model.lower().removesuffix(":latest")
        return any(
            fnmatchcase(spelling, pattern.lower())
            for pattern in self.models
            if pattern.count("/") == name.count("/")
            for spelling in (name, f"{name}:latest")
        )


class Record(msgspec.Struct, kw_only=True):
    """One request, without any of the conversation; times are in seconds."""

    request_id: str
    method: str
    path: str
    started_at: float
    address: str = ""
    """The client's; empty if unknown."""
    caller: Caller | None = None
    """None until the gate has admitted the request."""
    let_in: bool = False
    """Whether the gate knows the caller, or admits its address without a key."""
    is_exempt: bool = False
    """Whether no rate applies: the request is open to everyone, or a monitor's probe."""
    refused_key: str = ""
    """The name of the key that the request was refused with, if the key has one."""
    answer_headers: list[tuple[bytes, bytes]] = []
    """Added to every answer, errors included."""
    model: str = ""
    status: int = 0
    """The HTTP status of the answer; 0 until it starts."""
    is_stream: bool = False
    """Whether its answer has begun, as a stream."""
    may_have_run: bool = False
    """Whether Ollama may have seen a relayed request: repeating it could run a model twice."""
    error: type[BaseException] | None = None
    """What went wrong, even after the answer started."""
    traceparent: str = ""
    """The W3C trace context of the client, if requests are traced."""
    queued_s: float = 0
    asked_s: float | None = None
    """Time from the start until the request went to Ollama; None if it did not."""
    first_token_s: float | None = None
    prompt_tokens: int = 0
    tokens: int = 0
    """Tokens that the model wrote; of an unfinished stream, an estimate."""
    duration_s: float = 0
    ended_at: float = 0
    """When it ended, in seconds since 1970."""
    body_bytes: int = 0
    """How many bytes of its body are in memory."""
    settle: Callable[["Record"], Awaitable[None]] | None = None
    """What the gate wants called with the record, and awaited, when the request has ended."""

    @classmethod
    def of(cls, scope: Scope) -> "Record":
        """Return the record that `Recorder.begin` stored in `scope`."""
        record: Record = scope["state"]["record"]
        return record

    @property
    def answered(self) -> bool:
        """Whether a whole answer was sent."""
        return self.status == _OK and self.error is None

    def mark_asked(self) -> None:
        """Mark that the request has its slot, and goes to Ollama."""
        self.asked_s = monotonic() - self.started_at

    def mark_first_token(self) -> None:
        """Mark the start of the model's answer."""
        if self.first_token_s is None:
            self.first_token_s = monotonic() - self.started_at


class Recorder:
    """Records each request, and passes the records of those that have ended to `observers`.

    Those that end within a moment are observed together. Observing them one at a time would take
    four times as long, because requests and observers would push each other out of the CPU's
    caches; and it would delay the next request of a client that waits for each answer.
    """

    def __init__(
        self,
        *observers: Callable[..., None],
        release: Callable[[Record], None] | None = None,
    ) -> None:
        """Call each observer with one record or several.

        `release` gets each record as soon as its request has ended.
        """
        self.observers = observers
        self.in_flight = 0
        self.freezes = True
        """Whether the process may be frozen as soon as nothing is in progress, as functions are.

        Then no record may wait for the next moment.
        """
        self.traced = False
        """Whether requests are traced, as part of their clients' traces."""
        self.draining = False
        """Whether the server is stopping and refuses new requests."""
        self._release = release
        self._ended: list[Record] = []
        self._cohort = Cohort()
        self._streams = 0  # of those in flight

    def begin(self, scope: Scope) -> Record:
        """Start the record of the request in `scope`; `Record.of` finds it there."""
        fields = fields_of(scope)
        wanted = fields.get(b"x-request-id", b"").decode("latin-1")
        is_well_formed = wanted and _WELL_FORMED_ID.fullmatch(wanted)
        request_id = wanted if is_well_formed else f"{random.getrandbits(64):016x}"
        record = Record(
            request_id=request_id,
            method=scope["method"],
            path=encodable(scope["path"]),
            started_at=monotonic(),
            address=_known((scope.get("client") or ("",))[0]),
            answer_headers=[(b"x-request-id", request_id.encode())],
        )
        if self.traced:
            record.traceparent = fields.get(b"traceparent", b"").decode("latin-1")
        scope.setdefault("state", {})["record"] = record
        self.in_flight += 1
        return record

    def end(self, record: Record) -> None:
        """Complete `record`, and pass it on soon."""
        self.in_flight -= 1
        self._streams -= record.is_stream
        record.duration_s = monotonic() - record.started_at
        record.ended_at = time()
        if self._release:
            self._release(record)
        self._ended.append(record)
        at_once = not self.in_flight and (self.freezes or self.draining)
        if at_once or len(self._ended) >= MAX_GATHERED:
            self.flush()
        else:
            moment.begin(self)

    def let_others_catch_up(self) -> Awaitable[None]:
        """Let others come as far as this request, if there are any: together, they are faster."""
        return self._cohort.join() if self.in_flight - self._streams > 1 else DONE

    def begin_stream(self, record: Record) -> None:
        """Note that the answer has begun, as a stream: nobody waits for it any more."""
        record.is_stream = True
        self._streams += 1

    def late(self) -> None:
        """Pass on the records of the last moment."""
        self.flush()

    def flush(self) -> None:
        """Pass on the records that are still waiting."""
        ended, self._ended = self._ended, []
        for observe in self.observers if ended else ():
            observe(*ended)
