"""What the page's tests write and read."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.fake_ollama import FakeOllama, stalls_after


async def say(page: Any, text: str) -> None:
    """Write a message and send it with Enter."""
    await page.fill("#message", text)
    await page.press("#message", "Enter")


async def stall(page: Any, fake: FakeOllama) -> None:
    """Ask for an answer that stops after its first words, and wait for these."""
    fake.reply(stalls_after(3))
    await say(page, "Count")
    await page.wait_for_selector(".answer:has-text('0 1 2')")


async def wait_until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition; Playwright's own way needs `eval`, which the page forbids."""
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.02)


async def wait_for_count(page: Any, selector: str, count: int) -> None:
    """Wait until `count` elements match `selector`."""

    async def reached() -> bool:
        return bool(await page.locator(selector).count() == count)

    await wait_until(reached)


async def answered(page: Any, count: int = 1) -> Any:
    """Wait until there are `count` answers, all of them ended, and return the last one."""
    await wait_for_count(page, ".assistant .tools", count)
    return page.locator(".assistant").last


async def stored(page: Any) -> list[dict[str, Any]]:
    """Return the conversations that the browser keeps."""
    conversations: list[dict[str, Any]] = await page.evaluate(
        """async () => {
          const url = document.querySelector("script[src$='main.js']").src;
          const { exportAll } = await import(new URL("archive.js", url));
          return JSON.parse(await exportAll()).conversations;
        }"""
    )
    return conversations


def prompt_of(fake: FakeOllama, at: int) -> str:
    """Return the prompt of the model's request number `at`."""
    text: str = fake.asked()[at].json["messages"][-1]["content"]
    return text


def system_of(fake: FakeOllama, at: int) -> str:
    """Return the system prompt of the model's request number `at`."""
    first = fake.asked()[at].json["messages"][0]
    assert first["role"] == "system"
    return str(first["content"])
