"""Asks the gateway, and judges each answer."""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum

import httpx

from tests.resilience.upstream import texts

MODEL = "smollm2:135m"
PATHS = ("/api/chat", "/api/chat/stream")
_numbers = itertools.count()


class Outcome(StrEnum):
    """The outcome of a request."""

    RIGHT = "right"
    RIGHT_ERROR = "right error"
    WRONG = "wrong"
    LOST = "lost"
    """The connection ended without a complete answer or an error."""
    HUNG = "hung"


class Tally(Counter[Outcome]):
    """Counts outcomes, and keeps the first few wrong ones."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: list[str] = []

    def note(self, outcome: Outcome, text: str) -> None:
        self[outcome] += 1
        is_bad = outcome not in {Outcome.RIGHT, Outcome.RIGHT_ERROR}
        if is_bad and len(self.problems) < 5:
            self.problems.append(f"{outcome}: {text}")


class Asker:
    """Sends chats; what may happen to them depends on the scenario."""

    def __init__(
        self, url: str, *, limit_s: float = 20, errors: bool = False, breaks: bool = False
    ) -> None:
        """Call `url`; a request without an end after `limit_s` counts as hung.

        `errors`: an error is right even if the upstream was told to answer.
        `breaks`: so is a broken connection, since the scenario kills the gateway.
        """
        self.tally = Tally()
        self._url = url
        self._limit_s = limit_s
        self._errors = errors
        self._breaks = breaks
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=200)
        self._client = httpx.AsyncClient(trust_env=False, timeout=10 * limit_s, limits=limits)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def ask(self, way: str = "-", pace_s: float = 0, *, streamed: bool | None = None) -> None:
        """Ask once, and judge the answer."""
        number = next(_numbers)
        streamed = bool(number % 2) if streamed is None else streamed
        body = {"model": MODEL, "message": f"{number} {way} {pace_s}"}
        text = ""
        try:
            async with asyncio.timeout(self._limit_s):
                answer = self._client.stream("POST", self._url + PATHS[streamed], json=body)
                async with answer as response:
                    text = (await response.aread()).decode()
            is_stream = streamed and response.status_code == httpx.codes.OK
            outcome = self._judge(response.status_code, text, number, way, is_stream=is_stream)
        except TimeoutError:
            outcome = Outcome.HUNG
        except httpx.TransportError as error:
            text = repr(error)
            outcome = Outcome.RIGHT_ERROR if self._breaks else Outcome.LOST
        self.tally.note(outcome, f"{body['message']!r} -> {text[-300:]}")

    async def ask_all(self, ways: Iterable[str], pace_s: float = 0, at_once: int = 32) -> None:
        """Ask once in each of `ways`, that many at once."""
        upcoming = iter(ways)

        async def work() -> None:
            for way in upcoming:
                await self.ask(way, pace_s)

        await asyncio.gather(*(work() for _ in range(at_once)))

    async def leave(self, after_s: float, pace_s: float) -> None:
        """Ask for a stream, and disconnect after `after_s` seconds."""
        body = {"model": MODEL, "message": f"{next(_numbers)} - {pace_s}"}
        try:
            async with asyncio.timeout(after_s):
                answer = self._client.stream("POST", self._url + PATHS[1], json=body)
                async with answer as response:
                    await response.aread()
        except TimeoutError:
            pass
        self.tally.note(Outcome.RIGHT, "")

    def _judge(self, status: int, text: str, number: int, way: str, *, is_stream: bool) -> Outcome:
        expected = "".join(texts(number))
        *tokens, last = [json.loads(line) for line in text.split("\n") if line] or [{}]
        told = "".join(token.get("response", "?") for token in tokens)
        if last.get("success") is False:
            shape = {"success", "error", "done"} if is_stream else {"success", "error"}
            is_whole = set(last) == shape and bool(last["error"]) and last.get("done", True) is True
            is_due = way != "-" or self._errors
            is_status = is_stream or status >= httpx.codes.BAD_REQUEST
            # The tokens before an error are those of a failing upstream, or of this answer.
            is_prefix = way != "-" or expected.startswith(told)
            right = is_whole and is_due and is_status and is_prefix
            return Outcome.RIGHT_ERROR if right else Outcome.WRONG
        whole = told + last.get("response", "")
        right = way == "-" and whole == expected and last.get("done") is True
        return Outcome.RIGHT if right and last.get("context") else Outcome.WRONG
