"""Streams and answers that fail, or are unusual, and what each SDK reports."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.clients.v1.programs import Client
from tests.compatible import (
    FAULTS,
    KILLED,
    PLAIN_FAULTS,
    WHOLE,
    replayed,
    text_of,
    whole_stream,
)
from tests.fake_ollama import FakeOllama, Reply


class Case(NamedTuple):
    """One call of a client, and what the fake answers."""

    call: str
    name: str
    reply: Reply
    text: str | None = None
    """What the client must return; None if it must raise an error."""


class Row(NamedTuple):
    """What one client reported for one case."""

    path: str
    case: Case
    client: str
    result: dict[str, Any]

    @property
    def outcome(self) -> str:
        """The SDK's error and its status if there was one, or "whole"; empty if it is wrong."""
        if self.case.text is None:
            return f"{self.result.get('kind', '')} {self.result.get('status') or ''}".strip()
        return "whole" if self.result.get("value") == self.case.text else ""


def cases_of(path: str) -> Iterator[Case]:
    """Yield every case for `path`."""
    for name, reply in FAULTS.items():
        yield Case("stream", f"stream: {name}", reply(path))
    if path in KILLED:
        yield Case("stream", "stream: the runner is killed", replayed(KILLED[path]))
    for name, body in WHOLE.items():
        yield Case("stream", f"stream: {name}", whole_stream(name, path), text_of(body(path)))
    for name, plain in PLAIN_FAULTS.items():
        yield Case("plain", f"whole: {name}", plain)


async def rows(client: Client, fake: FakeOllama, url: str, folder: Path) -> list[Row]:
    """Run `client` on every case of its path.

    The gateway at `url` stands before `fake`, and `folder` has the packages for Node.
    """
    cases = [*cases_of(client.path)]
    fake.reply(*(case.reply for case in cases), path=client.path)
    before = len(fake.asked(client.path))
    results = await client.call(folder, url, *(case.call for case in cases))
    asked = len(fake.asked(client.path)) - before
    assert asked == len(cases), f"{client.title} asked {asked} times for {len(cases)} answers"
    return [
        Row(client.path, case, client.title, result)
        for case, result in zip(cases, results, strict=True)
    ]
