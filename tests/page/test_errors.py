"""Every failure is explained, with what to do about it, and loses nothing."""

from pathlib import Path
from typing import Any

import pytest

from core.keys import editing as keys
from core.settings.networks import Networks
from tests.fake_ollama import FakeOllama, Reply, after, error, never_answers
from tests.page.conftest import Open
from tests.page.conversation import answered, say, wait_for_count, wait_until

FAILURES: list[tuple[Reply, str]] = [
    (error(400, "this model does not support images"), "did not understand"),
    (error(404, "model 'llama3.1:70b' not found"), "not installed"),
    (error(500, "llama runner process has terminated"), "could not answer"),
    (after(3, lambda connection: connection.reset()), "cut off"),
]


@pytest.mark.parametrize(("reply", "words"), FAILURES, ids=[words for _, words in FAILURES])
async def test_failures_of_ollama(
    reply: Reply, words: str, open_page: Open, fake: FakeOllama
) -> None:
    page = await open_page()
    fake.reply(reply)
    await say(page, "Hello")
    answer = await answered(page)
    assert words in await answer.locator(".notice").inner_text()
    assert "The server says:" in await answer.locator(".notice").inner_text()
    assert words in await page.inner_text("#spoken")
    await page.click(".notice button")
    await page.wait_for_selector(".answer:has-text('Paris')")
    assert await page.locator(".notice").count() == 0
    assert await page.locator(".message").count() == 2


async def test_key_is_asked_for_and_kept_for_the_session(
    open_page: Open, fake: FakeOllama, tmp_path: Path
) -> None:
    file = tmp_path / "keys.json"
    key = keys.create(file, "page")
    page = await open_page(
        settings={"anonymous_clients": Networks("none"), "api_keys_file": str(file)}
    )
    await page.wait_for_selector("#key[open]")  # the models are not everybody's
    assert "API key is needed" in await page.inner_text("#key-why")
    await page.fill("#key-value", "owa_wrong")
    await page.press("#key-value", "Enter")
    await page.wait_for_selector("#key[open]")
    await page.keyboard.press("Escape")
    await say(page, "Hello")
    await page.wait_for_selector("#key[open]")
    assert "wrong or has expired" in await page.inner_text("#key-why")
    await page.fill("#key-value", key)
    await page.press("#key-value", "Enter")
    await page.wait_for_selector(".answer:has-text('Paris')")
    assert await page.locator("#model option").count() == 2
    assert await page.evaluate("sessionStorage.getItem('api-key')") == key
    assert key not in await page.evaluate("JSON.stringify(localStorage)")
    await page.reload()
    await wait_for_count(page, "#model option", 2)
    assert not await page.is_visible("#key")


async def test_rate_limit_counts_down(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page(settings={"rate_limit": "4/minute"})
    for count in (1, 2, 3):
        await say(page, "Hello")
        await answered(page, count)
    button = page.locator(".notice button")
    first = await button.inner_text()
    assert first.startswith("Try again in ")
    assert await button.is_disabled()

    async def went_on() -> bool:
        return bool(await button.inner_text() != first)

    await wait_until(went_on)


async def test_busy_server_is_tried_again_on_request(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page(settings={"max_concurrent": 1, "max_queue": 0})
    fake.reply(never_answers)
    await say(page, "First")
    await fake.wait_for()
    await page.click("#new")
    await say(page, "Second")
    notice = page.locator(".notice")
    await notice.wait_for()
    assert "busy" in await notice.inner_text()
    await page.click(".open:text('First')")
    await page.click("#stop")
    await page.click(".open:text('Second')")
    await page.click(".notice button:not(:disabled)")
    await page.wait_for_selector(".answer:has-text('Paris')")


async def test_lost_connection_keeps_what_had_come(
    open_page: Open, fake: FakeOllama, sent: list[dict[str, Any]]
) -> None:
    page = await open_page()
    await page.route(
        "**/api/chat/stream",
        lambda route: route.fulfill(body='{"response":"Half an ans","done":false}\n'),
        times=1,
    )
    await say(page, "Hello")
    answer = await answered(page)
    assert "Half an ans" in await answer.inner_text()
    assert "connection was lost" in await answer.inner_text()
    await say(page, "Go on")
    await answered(page, 2)
    assert sent[-1]["messages"][1] == {"role": "assistant", "content": "Half an ans"}


@pytest.mark.parametrize(
    ("status", "advice"),
    [(403, "Choose another model"), (413, "Shorten it"), (504, "choose a smaller model")],
)
async def test_refusals_say_what_to_do(status: int, advice: str, open_page: Open) -> None:
    page = await open_page()
    await page.route(
        "**/api/chat/stream",
        lambda route: route.fulfill(status=status, json={"success": False, "error": "No."}),
    )
    await say(page, "Hello")
    assert advice in await (await answered(page)).locator(".notice").inner_text()


async def test_a_key_that_no_header_takes_is_refused_in_words(open_page: Open) -> None:
    page = await open_page()
    await page.click("#open-settings")
    await page.click("#change-key")
    await page.fill("#key-value", "키")
    await page.press("#key-value", "Enter")
    assert await page.is_visible("#key[open]")
    problem = await page.evaluate("document.querySelector('#key-value').validationMessage")
    assert "only English letters" in problem
    assert await page.evaluate("sessionStorage.getItem('api-key')") is None
    await page.fill("#key-value", "owa_key")
    await page.press("#key-value", "Enter")

    async def kept() -> bool:
        return bool(await page.evaluate("sessionStorage.getItem('api-key')") == "owa_key")

    await wait_until(kept)


ONE_TALK: Any = {
    "name": "talk.md",
    "mimeType": "text/markdown",
    "buffer": b"# Title\n\n<!-- user -->\n## User\n\nHello\n",
}

BLOCKED = """
  for (const name of ["localStorage", "sessionStorage", "indexedDB"]) {
    const get = () => { throw new DOMException("Access is denied", "SecurityError"); };
    Object.defineProperty(window, name, { get });
  }
"""


async def test_blocked_storage_stops_nothing_else(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    await page.add_init_script(BLOCKED)
    await page.reload()
    await page.wait_for_selector("#notice:has-text('cannot store')")
    await wait_for_count(page, "#model option", 2)
    await page.select_option("#model", "smollm2:135m")
    await say(page, "Hello")
    await page.wait_for_selector(".answer:has-text('Paris')")
    await answered(page)
    await page.click("#open-settings")
    await page.select_option("#theme", "dark")
    await page.select_option("#language", "ko")
    assert await page.inner_text("#settings-title") == "설정"
    await page.select_option("#language", "en")
    for act in (page.click("#export-all"), page.set_input_files("#import-file", ONE_TALK)):
        await act
        await page.wait_for_selector("#import-result:has-text('cannot store')")
        await page.keyboard.press("Escape")
        await page.click("#open-settings")


FILL = """() => {
  for (const storage of [localStorage, sessionStorage]) {
    for (let size = 1 << 22, count = 0; size >= 1; ) {
      try {
        storage.setItem(`fill${count++}`, "x".repeat(size));
      } catch {
        size >>= 1;
      }
    }
  }
}"""


async def test_full_storage_stops_nothing(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    await page.evaluate(FILL)
    await page.select_option("#model", "smollm2:135m")
    await page.click("#open-settings")
    await page.select_option("#theme", "dark")
    assert await page.get_attribute("html", "data-theme") == "dark"
    await page.keyboard.press("Escape")
    await page.fill("#message", "Later")
    await page.wait_for_timeout(500)
    await say(page, "Hello")
    await answered(page)
    await page.click("#new")
    assert await page.input_value("#message") == ""
    await page.fill("#message", "A draft")
    await page.click("#list .open")
    await page.wait_for_selector(".answer")
    await page.click("#new")
    assert await page.input_value("#message") == "A draft"
    await page.click("#open-settings")
    await page.click("#change-key")
    await page.fill("#key-value", "owa_key")
    async with page.expect_request("**/api/models?*") as models:
        await page.press("#key-value", "Enter")
    assert (await models.value).headers["authorization"] == "Bearer owa_key"


async def test_unreachable_server(open_page: Open) -> None:
    page = await open_page()
    await page.context.set_offline(True)
    await say(page, "Hello")
    answer = await answered(page)
    assert "cannot be reached" in await answer.inner_text()
    await page.wait_for_selector("#status:text('The server is not reachable')")
    await page.context.set_offline(False)
    await page.wait_for_selector("#status:text('Connected')")


async def test_status_shows_whether_ollama_is_connected(open_page: Open, fake: FakeOllama) -> None:
    await fake.stop()
    page = await open_page()
    await page.wait_for_selector("#status:text('Ollama is not reachable')")


async def test_the_key_is_remembered_on_request(open_page: Open, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = keys.create(file, "page")
    page = await open_page(settings={"api_keys_file": str(file)})
    for remembered in (True, False):
        await page.click("#open-settings")
        await page.click("#change-key")
        assert await page.is_checked("#key-remember") is not remembered  # as left before
        await page.fill("#key-value", key)
        await page.set_checked("#key-remember", remembered)
        await page.press("#key-value", "Enter")
        await page.wait_for_selector("#key", state="hidden")
        await page.keyboard.press("Escape")
        kept = await page.evaluate("[localStorage['api-key'], sessionStorage['api-key']]")
        assert kept == ([key, None] if remembered else [None, key])
