"""Takes the README's screenshots of the page: `python -m tests.page.pictures [directory]`."""

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from playwright.async_api import Browser, FilePayload, Page, async_playwright

from core.app import create_app
from core.settings.schema import Settings
from handlers import asgi
from tests.fake_ollama import FakeOllama, tokens
from tests.page import pdf
from tests.page.conftest import ARGUMENTS, CHROMIUM
from tests.page.conversation import answered

IMAGES = Path(__file__).parents[2] / "deploy" / "images"
PACE_S = 0.02

CODE = '''```python
def primes(limit: int) -> list[int]:
    """Return every prime up to `limit`."""
    sieve = [True] * (limit + 1)
    for n in range(2, int(limit**0.5) + 1):
        if sieve[n]:
            sieve[n * n :: n] = [False] * len(sieve[n * n :: n])
    return [n for n in range(2, limit + 1) if sieve[n]]
```'''

ENGLISH = rf"""The report counts the primes up to $x$; by the **prime number theorem**

$$
\pi(x) \sim \int_2^x \frac{{dt}}{{\ln t}}, \qquad
\sum_{{p \le x}} \frac{{1}}{{p}} \approx \ln \ln x + 0.2615
$$

| up to | primes | estimate |
|---|--:|--:|
| $10^3$ | 168 | 177.6 |
| $10^6$ | 78,498 | 78,626.5 |

{CODE}
"""

KOREAN = r"""**에라토스테네스의 체**는 $O(n \log \log n)$ 단계로 소수를 찾습니다.

$$\pi(x) \sim \frac{x}{\ln x}$$

| 방법 | 단계 | 메모리 |
|---|--:|--:|
| 나눗셈 | 31,622 | 1 |
| 체 | 2,775,208 | 1,000,001 |

```python
sieve = [True] * (limit + 1)
sieve[4::2] = [False]  # 짝수
```
"""


@asynccontextmanager
async def served() -> AsyncIterator[tuple[str, FakeOllama]]:
    """Serve the page in front of a fake Ollama."""
    async with FakeOllama() as fake:
        fake.capabilities = ["completion", "vision", "thinking"]
        fake.context_length = 131_072
        app = create_app(asgi.routes, Settings(ollama_base_url=fake.url), instrumented=True)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        host, port = server.servers[0].sockets[0].getsockname()
        try:
            yield f"http://{host}:{port}", fake
        finally:
            server.should_exit = True
            await task


async def _open(browser: Browser, url: str, **options: Any) -> Page:
    context = await browser.new_context(
        base_url=url, reduced_motion="reduce", service_workers="block", **options
    )
    page = await context.new_page()
    await page.goto("/")
    await page.wait_for_selector("#status[data-state=connected]", state="attached")
    return page


async def _say(page: Page, text: str, count: int = 1) -> None:
    await page.fill("#message", text)
    await page.click("#send")
    await answered(page, count)


async def _finish(page: Page, path: Path) -> None:
    await page.wait_for_selector(".hljs-number")
    await page.wait_for_selector(".answer math")
    await page.evaluate("document.fonts.ready")
    await page.mouse.move(0, 0)
    await page.screenshot(path=path)


async def english(browser: Browser, url: str, fake: FakeOllama, directory: Path) -> None:
    page = await _open(browser, url, locale="en-US", viewport={"width": 1080, "height": 880})
    for title in ("Plan a week in Jeju", "Explain photosynthesis to a child", "A poem about rain"):
        await _say(page, title)
        await page.click("#new")
    fake.reply(tokens(_words(ENGLISH), pace_s=PACE_S))
    lines = b"(The primes thin out, but they never end.) Tj 0 -1 Td " * 400
    report = pdf.written(b"BT /F1 9 Tf 72 800 Td " + lines + b"ET")
    file = FilePayload(name="primes.pdf", mimeType="application/pdf", buffer=report)
    await page.set_input_files("#attach-file", file)
    await page.wait_for_selector("#attachments .size")
    await _say(page, "Summarise this, with formulas and `Python` code.")
    await _finish(page, directory / "chat.png")


async def korean(browser: Browser, url: str, fake: FakeOllama, directory: Path) -> None:
    page = await _open(
        browser,
        url,
        locale="ko-KR",
        color_scheme="dark",
        viewport={"width": 390, "height": 780},
        has_touch=True,
        is_mobile=True,
    )
    fake.reply(tokens(_words(KOREAN), pace_s=PACE_S))
    await _say(page, "소수를 찾는 방법을 알려 줘")
    await _finish(page, directory / "chat-korean.png")


def _words(text: str) -> list[str]:
    return text.replace(" ", " \0").split("\0")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, nargs="?", default=IMAGES)
    directory: Path = parser.parse_args().directory
    async with served() as (url, fake), async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        await english(browser, url, fake, directory)
        await korean(browser, url, fake, directory)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())
