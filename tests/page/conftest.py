"""A real browser in front of the bundle and the fake Ollama."""

import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Serve
from tests.network import unchanged
from tests.page import firefox

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

IN_BOTH = pytest.mark.parametrize("browser", ["chromium", "firefox"], indirect=True)
"""Runs a test in Debian's Firefox too."""

Open = Callable[..., Awaitable[Any]]
"""(path, browser context's options ..., settings=...) -> the page, loaded and with its models."""


@pytest.fixture
async def browser(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    playwright_api = pytest.importorskip(
        "playwright.async_api", reason="Playwright is not installed (PyPI: playwright)"
    )
    with unchanged():
        async with playwright_api.async_playwright() as playwright:
            is_firefox = getattr(request, "param", "") == "firefox"
            launch = _launch_firefox if is_firefox else _launch_chromium
            browser = await launch(playwright, tmp_path)
            yield browser
            await browser.close()


async def _launch_chromium(playwright: Any, _: Path) -> Any:
    if not CHROMIUM:
        pytest.skip("Chromium is not installed (Debian: chromium)")
    return await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)


async def _launch_firefox(playwright: Any, directory: Path) -> Any:
    if not firefox.FIREFOX:
        pytest.skip("Firefox is not installed (Debian: firefox-esr)")
    script = directory / "firefox"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{firefox.__file__}" "$@"\n')
    script.chmod(0o700)
    return await playwright.firefox.launch(
        channel="moz-firefox",
        executable_path=script,
        firefox_user_prefs={
            "ui.prefersReducedMotion": 1,
            "dom.events.testing.asyncClipboard": True,
        },
    )


@pytest.fixture
def sent() -> list[dict[str, Any]]:
    """The bodies of the requests for answers, as the pages of a test send them."""
    return []


@pytest.fixture
async def open_page(browser: Any, serve: Serve, sent: list[dict[str, Any]]) -> AsyncIterator[Open]:
    """Open the page; at the end, assert that nothing failed and no other site was called."""
    problems: list[str] = []

    def check_request(request: Any, base_url: str) -> None:
        if not request.url.startswith((f"{base_url}/", "data:", "blob:")):
            problems.append(f"request for {request.url}")
        if request.url.endswith("/api/chat/stream"):
            sent.append(request.post_data_json)

    def check_console(text: str) -> None:
        if "Content Security Policy" in text or "Trusted" in text:
            problems.append(text)

    async with AsyncExitStack() as stack:

        async def open_page(
            path: str = "/",
            *,
            settings: dict[str, Any] | None = None,
            through: Callable[[str], AbstractAsyncContextManager[Any]] | None = None,
            **options: Any,
        ) -> Any:
            base_url = await serve(**(settings or {}))
            if through:
                base_url = (await stack.enter_async_context(through(base_url))).url
            usual = {"locale": "en-US", "reduced_motion": "reduce", "service_workers": "block"}
            context = await browser.new_context(**{"base_url": base_url, **usual, **options})
            stack.push_async_callback(context.close)
            await context.grant_permissions(["clipboard-read", "clipboard-write"])
            context.set_default_timeout(30_000)
            context.on("weberror", lambda error: problems.append(str(error.error)))
            context.on("request", lambda request: check_request(request, base_url))
            context.on("console", lambda message: check_console(message.text))
            page = await context.new_page()
            await page.goto(path)
            await page.wait_for_selector(
                "#status[data-state=connected], #status[data-state=broken]"
            )
            return page

        yield open_page
    assert problems == []
