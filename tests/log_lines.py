"""The lines of a log file, read while it is written."""

import asyncio
import json
from pathlib import Path


class Lines:
    def __init__(self, path: Path) -> None:
        self.path = path

    async def of_requests(self, count: int) -> list[dict[str, object]]:
        async with asyncio.timeout(20):
            while (
                len(found := [each for each in self.all() if each["logger"] == "request"]) < count
            ):
                await asyncio.sleep(0.01)
        return found

    def all(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.path.read_text("utf-8").split("\n")[:-1]]
