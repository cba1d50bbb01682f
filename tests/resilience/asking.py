"""Asks the gateway, and judges each answer."""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

import httpx

from tests.resilience.upstream import STATUSES, texts

MODEL = "smollm2:135m"
PATHS = ("/api/chat", "/api/chat/stream")
_numbers = itertools.count()


class Outcome(StrEnum):
    """The outcome of a request."""

    RIGHT = "right"
    RIGHT_ERROR = "right error"
    """An answer with the error that was due, in the one shape."""
    REFUSED = "refused"
    """No connection, or one that closed without a byte; Ollama has not seen the request."""
    CUT = "cut off"
    """The connection ended within the answer, or after Ollama had seen the request."""
    WRONG = "wrong"
    LOST = "lost"
    """Refused or cut off where the gateway had no reason to."""
    HUNG = "hung"


ENDS = frozenset({Outcome.REFUSED})
"""How requests may end while the gateway is stopped and restarted."""
DIES = frozenset({Outcome.REFUSED, Outcome.CUT})
"""How they may end if it is killed, and cannot finish its answers."""


class Tally(Counter[Outcome]):
    """Counts outcomes, and keeps the first few wrong ones."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: list[str] = []

    def note(self, outcome: Outcome, text: str) -> None:
        self[outcome] += 1
        is_bad = outcome in {Outcome.WRONG, Outcome.LOST, Outcome.HUNG}
        if is_bad and len(self.problems) < 5:
            self.problems.append(f"{outcome}: {text}")


class _Break(NamedTuple):
    """A request whose connection broke."""

    number: int
    begun: bool
    text: str


class Asker:
    """Sends chats; what may happen to them depends on the scenario."""

    def __init__(
        self,
        url: str,
        *,
        limit_s: float = 60,
        errors: tuple[str, ...] = (),
        breaks: Collection[Outcome] = (),
    ) -> None:
        """Call `url`; a request without an end after `limit_s` counts as hung.

        `errors`: how an error may begin that is right even if the upstream was told to answer.
        `breaks`: what may become of a request, since the scenario ends the gateway.
        """
        self.tally = Tally()
        self.errors = errors
        self._url = url
        self._limit_s = limit_s
        self._allowed = breaks
        self._breaks: list[_Break] = []
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=200)
        self._client = httpx.AsyncClient(trust_env=False, timeout=10 * limit_s, limits=limits)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def ask(
        self,
        way: str = "-",
        pace_s: float = 0,
        *,
        streamed: bool | None = None,
        leave_s: float | None = None,
    ) -> bool:
        """Ask once, and judge the answer; leave after `leave_s`, if given.

        Return false if the connection broke.
        """
        number = next(_numbers)
        streamed = bool(number % 2) if streamed is None else streamed
        body = {"model": MODEL, "message": f"{number} {way} {pace_s}"}
        text, begun = "", False
        try:
            async with asyncio.timeout(self._limit_s if leave_s is None else leave_s):
                answer = self._client.stream("POST", self._url + PATHS[streamed], json=body)
                async with answer as response:
                    begun = True
                    text = (await response.aread()).decode()
        except TimeoutError:
            outcome = Outcome.HUNG if leave_s is None else Outcome.RIGHT
        except httpx.TransportError as error:
            self._breaks.append(_Break(number, begun, f"{body['message']!r} -> {error!r}"))
            return False
        else:
            is_stream = streamed and response.status_code == httpx.codes.OK
            outcome = self._judge(response.status_code, text, number, way, is_stream=is_stream)
        self.tally.note(outcome, f"{body['message']!r} -> {text[-300:]}")
        return True

    async def ask_all(self, ways: Iterable[str], pace_s: float = 0, at_once: int = 32) -> None:
        """Ask once in each of `ways`, that many at once."""
        upcoming = iter(ways)

        async def work() -> None:
            for way in upcoming:
                await self.ask(way, pace_s)

        await asyncio.gather(*(work() for _ in range(at_once)))

    def settle(self, seen: Mapping[str, int]) -> Tally:
        """Return the tally, now that it is known which requests the upstream has `seen`."""
        for number, begun, text in self._breaks:
            outcome = Outcome.CUT if begun or str(number) in seen else Outcome.REFUSED
            self.tally.note(outcome if outcome in self._allowed else Outcome.LOST, text)
        self._breaks.clear()
        return self.tally

    def _judge(self, status: int, text: str, number: int, way: str, *, is_stream: bool) -> Outcome:
        expected = "".join(texts(number))
        *tokens, last = [json.loads(line) for line in text.split("\n") if line] or [{}]
        told = "".join(token.get("response", "?") for token in tokens)
        if last.get("success") is False:
            shape = {"success", "error", "done"} if is_stream else {"success", "error"}
            is_whole = set(last) == shape and last.get("done", True) is True
            # The tokens before an error are those of a failing upstream, or of this answer.
            if way != "-":
                right = bool(last["error"]) and (is_stream or status == STATUSES[way])
            else:
                is_error = status >= httpx.codes.BAD_REQUEST and not tokens
                right = last["error"].startswith(self.errors or "\0") and (
                    expected.startswith(told) if is_stream else is_error
                )
            return Outcome.RIGHT_ERROR if is_whole and right else Outcome.WRONG
        whole = told + last.get("response", "")
        right = way == "-" and whole == expected and last.get("done") is True
        return Outcome.RIGHT if right and last.get("context") else Outcome.WRONG
