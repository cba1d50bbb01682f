"""Asks with httpx in asyncio, several questions at once; their answers come as streams."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator

import httpx

URL = os.environ.get("OLLAMA_WEB_API_URL", "http://127.0.0.1:5000")
KEY = os.environ.get("OLLAMA_WEB_API_KEY")


async def chat_stream(client: httpx.AsyncClient, message: str) -> AsyncIterator[str]:
    """Yield the answer as it is written; it is complete unless this raises."""
    body = {"message": message}
    async with client.stream("POST", "/api/chat/stream", json=body) as answer:
        if answer.is_error:
            await answer.aread()
            raise RuntimeError(f"{answer.status_code}: {answer.json()['error']}")
        rest, done = "", False
        async for text in answer.aiter_text():
            *lines, rest = (rest + text).split("\n")  # aiter_lines() would cut at U+2028 too
            for event in map(json.loads, lines):
                if "error" in event:
                    raise RuntimeError(event["error"])
                yield event["response"]
                done = event["done"]
        if not done:
            raise RuntimeError("The answer was cut off")


async def show(client: httpx.AsyncClient, message: str) -> None:
    """Print the answer to `message` when it is complete."""
    words = [text async for text in chat_stream(client, message)]
    print("".join(words))


async def main() -> None:
    """Ask what the command line says."""
    headers = {"Authorization": f"Bearer {KEY}"} if KEY else {}
    async with (
        httpx.AsyncClient(base_url=URL, headers=headers, timeout=330) as client,
        asyncio.TaskGroup() as tasks,
    ):
        for message in sys.argv[1:] or ["안녕하세요!"]:
            tasks.create_task(show(client, message))


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except* (RuntimeError, httpx.HTTPError) as failures:
        sys.exit("\n".join(map(str, failures.exceptions)))
