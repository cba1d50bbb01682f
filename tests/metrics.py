"""A running server's own metrics."""

import asyncio
import re

import httpx


async def until(url: str, metric: str, value: int) -> None:
    """Wait until the server's `metric` is `value`."""
    line = re.compile(rf"^ollama_web_api_{metric} (\S+)$", re.MULTILINE)
    async with asyncio.timeout(30), httpx.AsyncClient(timeout=30) as client:
        while True:
            found = line.search((await client.get(f"{url}/metrics")).text)
            if found and float(found[1]) == value:
                return
            await asyncio.sleep(0.02)
