"""Each way in which an answer can fail, for each SDK, and what that raises."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.clients.v1.programs import Client
from tests.fake_ollama import FakeOllama, Reply
from tests.handlers.test_v1 import FAULTS, KILLED, PLAIN_FAULTS, replayed


class Row(NamedTuple):
    """What one client reported for one fault."""

    path: str
    fault: str
    client: str
    result: dict[str, Any]

    @property
    def raised(self) -> str:
        """The SDK's error, and the status if there was one; empty if nothing was raised."""
        status = self.result.get("status")
        return f"{self.result.get('kind', '')} {status or ''}".strip()


def faults_of(path: str) -> Iterator[tuple[str, str, Reply]]:
    """Yield the call, the fault's name and the fake's reply."""
    for name, reply in FAULTS.items():
        yield "stream", f"stream: {name}", reply(path)
    if path in KILLED:
        yield "stream", "stream: the runner is killed", replayed(KILLED[path])
    for name, plain in PLAIN_FAULTS.items():
        yield "plain", f"whole: {name}", plain


async def rows(client: Client, fake: FakeOllama, url: str, folder: Path) -> list[Row]:
    """Put every fault of its path before `client`.

    The gateway at `url` stands before `fake`, and `folder` has the packages for Node.
    """
    calls, names, replies = zip(*faults_of(client.path), strict=True)
    fake.reply(*replies, path=client.path)
    before = len(fake.asked(client.path))
    results = await client.call(folder, url, *calls)
    asked = len(fake.asked(client.path)) - before
    assert asked == len(calls), f"{client.title} asked {asked} times for {len(calls)} answers"
    return [
        Row(client.path, name, client.title, result)
        for name, result in zip(names, results, strict=True)
    ]
