"""`python -m tests.benchmarks.page CHECKOUT ...`: the chat page of several checkouts, in turn.

Each checkout serves its page from its own .venv, all in front of one fake Ollama and in one
Chromium. Rounds alternate between them, so that what slows down the machine slows down all; a
ratio is the median of the ratios of the rounds. CPU is what the page's main thread used.
"""

import argparse
import asyncio
import json
import os
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import CDPSession, Page, async_playwright

from tests.fake_ollama import FakeOllama, tokens
from tests.page.conftest import ARGUMENTS, CHROMIUM

CONVERSATIONS = 500
TURNS = 100
TOKENS = 4000
PART = """## Part

Some *words* and **more** of `them`, in a [link](https://example.com/).

| a | b |
|---|--:|
| one | 2 |

```python
def hello() -> str:
    return "안녕하세요"
```

- one
- two

"""
WATCH = """
  window.frames_ms = [];
  let last = performance.now();
  const count = (now) => { frames_ms.push(now - last); last = now; requestAnimationFrame(count); };
  requestAnimationFrame(count);
"""
SETTLED = """() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)))"""

Figures = dict[str, float]


def _conversations() -> str:
    """Return a file to import; every version of the page reads this form."""
    long = [_turn("Go on", PART * 3) for _ in range(TURNS)]
    listed = [
        _conversation(f"Conversation {number}", number, [_turn("Hello", "Hi")])
        for number in range(1, CONVERSATIONS)
    ]
    return json.dumps({"conversations": [_conversation("A long one", 0, long), *listed]})


def _turn(question: str, answer: str) -> list[dict[str, Any]]:
    model = {"model": "llama3.1:70b", "ended": "stop"}
    return [
        {"role": "user", "text": question, "images": []},
        {"role": "assistant", "text": answer, **model},
    ]


def _conversation(title: str, age: int, turns: list[list[dict[str, Any]]]) -> dict[str, Any]:
    when = 1_790_000_000_000 - age * 3_600_000
    messages = [message for turn in turns for message in turn]
    return {"id": title, "title": title, "created": when, "updated": when, "messages": messages}


@asynccontextmanager
async def _serving(checkout: Path, ollama_url: str) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        checkout / ".venv/bin/python",
        "-m",
        "handlers",
        cwd=checkout,
        env={
            **os.environ,
            "OLLAMA_BASE_URL": ollama_url,
            "PORT": "0",
            "WEB_PORT": "0",
            "RATE_LIMIT": "off",
            "LOG_FORMAT": "console",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout
    try:
        async for line in process.stdout:
            _, found, url = line.decode().partition("Listening for the API on ")
            if found:
                break
        reading = asyncio.create_task(process.stdout.read())  # or the pipe fills up
        yield url.strip()
    finally:
        process.terminate()
        await process.wait()
    await reading


class Visitor:
    """A browser that keeps its conversations, at one checkout's page."""

    def __init__(self, page: Page, devtools: CDPSession, fake: FakeOllama) -> None:
        self._page = page
        self._devtools = devtools
        self._fake = fake

    async def prepare(self, file: Path) -> None:
        await self._devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
        await self._page.add_init_script(WATCH)
        await self._page.goto("/")
        await self._page.set_input_files("#import-file", file)
        await self._page.wait_for_selector(".open:text-is('A long one')", timeout=120_000)

    async def listed(self) -> Figures:
        """Load the page with all of the conversations in its list."""

        async def load() -> None:
            await self._page.reload()
            last = f"#list li:has-text('Conversation {CONVERSATIONS - 1}')"
            await self._page.wait_for_selector(last, state="attached")

        return await self._measured(load)

    async def opened(self) -> Figures:
        """Open a conversation of many turns."""

        async def click() -> None:
            await self._page.evaluate("frames_ms.length = 0")
            await self._page.click(".open:text-is('A long one')")
            await self._page.locator(".message").nth(2 * TURNS - 1).wait_for(state="attached")

        return await self._measured(click)

    async def streamed(self) -> Figures:
        """Receive a long answer at full speed."""
        parts = (PART * (5 * TOKENS // len(PART) + 1)).replace(" ", " \0").split("\0")
        self._fake.default = tokens(parts[:TOKENS])

        async def ask() -> None:
            await self._page.click("#new")
            await self._page.fill("#message", "Much, please")
            await self._page.evaluate("frames_ms.length = 0")
            await self._page.press("#message", "Enter")
            await self._page.wait_for_selector(".assistant .tools")

        return await self._measured(ask)

    async def _measured(self, work: Callable[[], Awaitable[None]]) -> Figures:
        await self._page.goto("/")
        await self._page.wait_for_selector(".open:text-is('A long one')")
        await self._page.wait_for_selector("#status[data-state=connected]")
        loop = asyncio.get_running_loop()
        cpu_s, start_s = await self._cpu_s(), loop.time()
        await work()
        await self._page.evaluate(SETTLED)
        wall_s = loop.time() - start_s
        frames: list[float] = await self._page.evaluate("frames_ms")
        cpu_s = await self._cpu_s() - cpu_s
        await self._page.goto("about:blank")  # where it takes no time from the others
        return {
            "wall ms": 1000 * wall_s,
            "CPU ms": 1000 * cpu_s,
            "median frame ms": statistics.median(frames),
            "worst frame ms": max(frames),
        }

    async def _cpu_s(self) -> float:
        metrics = (await self._devtools.send("Performance.getMetrics"))["metrics"]
        return float(
            next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")
        )


async def _run(checkouts: list[Path], rounds: int, file: Path) -> None:
    results: dict[tuple[str, str], list[list[float]]] = {}
    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(FakeOllama())
        playwright = await stack.enter_async_context(async_playwright())
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        stack.push_async_callback(browser.close)
        visitors = []
        for checkout in checkouts:
            url = await stack.enter_async_context(_serving(checkout, fake.url))
            context = await browser.new_context(
                base_url=url, locale="en-US", reduced_motion="reduce", service_workers="block"
            )
            page = await context.new_page()
            visitors.append(Visitor(page, await context.new_cdp_session(page), fake))
            await visitors[-1].prepare(file)
        for number in range(rounds):
            for name in ("listed", "opened", "streamed"):
                in_turn = visitors if number % 2 == 0 else visitors[::-1]
                found = {visitor: await getattr(visitor, name)() for visitor in in_turn}
                for kind in found[visitors[0]]:
                    row = [found[visitor][kind] for visitor in visitors]
                    results.setdefault((name, kind), []).append(row)
    print("load average", *(f"{load:.2f}" for load in os.getloadavg()))
    for (name, kind), rows in results.items():
        medians = [statistics.median(column) for column in zip(*rows, strict=True)]
        ratio = statistics.median(row[-1] / row[0] for row in rows)
        values = "  ".join(f"{median:9.1f}" for median in medians)
        print(f"{name:9} {kind:16} {values}   last / first {ratio:.2f}")


def main() -> None:
    """Measure and print medians, one column a checkout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkouts", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--file", type=Path, default=Path("/tmp/conversations.json"))  # noqa: S108
    arguments = parser.parse_args()
    checkouts = [checkout.resolve() for checkout in arguments.checkouts]
    arguments.file.write_text(_conversations())
    asyncio.run(_run(checkouts, arguments.rounds, arguments.file))


if __name__ == "__main__":
    main()
