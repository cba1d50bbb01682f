"""The page with a real model, the embedded engine's."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.page.conversation import say, stored
from tests.processes import bundle


@pytest.fixture
def url(engine_url: str) -> Iterator[str]:
    with bundle(engine_url, DEFAULT_MODEL="smollm2:135m", SHUTDOWN_GRACE_S="1") as url:
        yield url


async def _answered(page: Any, count: int) -> Any:
    """Wait for the answer `count` while the model works: a busy machine is slow."""
    answer = page.locator(".assistant").nth(count - 1)
    await answer.locator(".tools").wait_for(timeout=0)
    assert await answer.locator(".notice").count() == 0, await answer.inner_text()
    return answer


@pytest.mark.timeout(600)
async def test_ask_stream_stop_reload_and_go_on(browser: Any, url: str) -> None:
    context = await browser.new_context(base_url=url, locale="en-US")
    context.set_default_timeout(30_000)
    page = await context.new_page()
    await page.goto("/")
    await page.wait_for_selector("#model option:text('smollm2:135m (default)')", state="attached")
    await page.wait_for_selector("#attach[aria-label='Add files']")  # this model does not see

    await page.click("#open-settings")
    await page.fill("#temperature", "0")
    await page.keyboard.press("Escape")

    await say(page, "What is the capital of France?")
    answer = await _answered(page, 1)
    assert "Paris" in await answer.inner_text()
    assert "tokens/s" in await answer.locator(".figures").inner_text()

    await say(page, "Tell me everything about it, in a thousand words.")
    await page.locator(".assistant").nth(1).locator(".answer p").wait_for(timeout=0)
    await page.click("#stop")
    answer = await _answered(page, 2)
    assert "Stopped." in await answer.inner_text()
    before = await stored(page)

    await page.reload()
    await page.wait_for_selector(".assistant:has-text('Paris')")
    assert await stored(page) == before
    await _answered(page, 2)
    await say(page, "Which city did I ask about?")
    await _answered(page, 3)
    assert await page.locator(".notice").count() == 0
    await context.close()
