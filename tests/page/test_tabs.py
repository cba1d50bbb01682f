"""Several tabs: one store, in which none overwrites or revives anything."""

from typing import Any

import pytest

from tests.fake_ollama import FakeOllama, after, never_answers, tokens
from tests.page.conftest import IN_BOTH, Open
from tests.page.conversation import answered, say, stall, stored, wait_for_count, wait_until


async def _second_tab(page: Any, script: str = "") -> Any:
    other = await page.context.new_page()
    await other.add_init_script(script)
    await other.goto(page.url)
    await other.wait_for_selector("#status[data-state=connected]")
    return other


async def _delete(page: Any, title: str) -> None:
    await page.bring_to_front()
    await page.hover(".open")
    if await page.is_visible("#list .more"):  # where no pointer can hover
        await page.click("#list .more")
    await page.click(f"[aria-label='Delete: {title}']")


async def _told(page: Any) -> list[str]:
    texts: list[str] = await page.locator(".message .text, .message .answer").all_text_contents()
    return [text.strip() for text in texts]


@IN_BOTH
async def test_a_turn_of_another_tab_appears_and_is_kept(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    fake.reply(tokens(["One"]), tokens(["Two"]), tokens(["Three"]))
    await say(page, "First")
    await answered(page)
    other = await _second_tab(page)
    await answered(other)
    await say(page, "Second")
    await answered(other, 2)
    await say(other, "Third")
    await answered(page, 3)
    expected = ["First", "One", "Second", "Two", "Third", "Three"]
    assert await _told(page) == await _told(other) == expected
    (conversation,) = await stored(page)
    assert [message["text"] for message in conversation["messages"]] == expected


async def test_turns_at_the_same_time_become_branches(open_page: Open, fake: FakeOllama) -> None:
    """A tab unaware of the other, such as a frozen one, loses and destroys nothing."""
    page = await open_page()
    await say(page, "First")
    await answered(page)
    other = await _second_tab(page, "BroadcastChannel.prototype.addEventListener = () => {}")
    await answered(other)
    await page.context.route("**/api/chat/stream", lambda route: None)
    await say(page, "In the one tab")
    await say(other, "In the other tab")

    async def both_stored() -> bool:
        (conversation,) = await stored(page)
        texts = [message["text"] for message in conversation["messages"]]
        return {"In the one tab", "In the other tab"} <= set(texts)

    await wait_until(both_stored)
    await page.context.unroute_all(behavior="ignoreErrors")


async def test_what_another_tab_writes_is_seen_and_not_interrupted(
    open_page: Open, fake: FakeOllama
) -> None:
    page = await open_page()
    await stall(page, fake)
    other = await _second_tab(page)
    await other.wait_for_selector(".progress:text('Another tab is receiving this answer')")
    await other.wait_for_selector(".answer:has-text('0 1 2')")
    await say(other, "Me too")
    await other.wait_for_selector("#notice:has-text('Another tab is receiving')")
    assert await other.input_value("#message") == "Me too"
    await page.click("#stop")
    await other.wait_for_selector(".aside:has-text('Stopped.')")
    await other.press("#message", "Enter")
    await answered(other, 2)


@IN_BOTH
async def test_a_deletion_is_not_undone_by_another_tab(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    await say(page, "Hello")
    await answered(page)
    other = await _second_tab(page)
    await answered(other)
    await _delete(page, "Hello")
    await other.wait_for_selector("#toast:has-text('deleted in another tab')")
    await wait_for_count(other, ".message", 0)
    await wait_for_count(other, "#list .open", 0)
    await say(other, "A new one")
    await answered(other)
    assert [conversation["title"] for conversation in await stored(page)] == ["A new one"]


async def test_a_tab_that_missed_the_deletion_gives_the_question_back(
    open_page: Open, fake: FakeOllama
) -> None:
    page = await open_page()
    await say(page, "Hello")
    await answered(page)
    await page.evaluate(
        """async () => {
          const url = document.querySelector("script[src$='main.js']").src;
          const { remove } = await import(new URL("store.js", url));
          await remove(location.hash.slice(1));
        }"""
    )  # a tab does not hear itself
    fake.reply(never_answers)
    await say(page, "More of it")
    await page.wait_for_selector("#toast:has-text('deleted in another tab')")
    assert await page.input_value("#message") == "More of it"
    assert await stored(page) == []


async def test_deleting_can_be_undone(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    await say(page, "Hello")
    await answered(page)
    before = await stored(page)
    other = await _second_tab(page)
    await _delete(page, "Hello")
    await wait_for_count(other, "#list .open", 0)
    assert await stored(page) == []
    await page.click("#toast button:has-text('Undo')")
    await wait_for_count(other, "#list .open", 1)
    await answered(page)
    assert await stored(page) == before


async def test_a_running_answer_is_kept_when_its_deletion_is_undone(
    open_page: Open, fake: FakeOllama
) -> None:
    page = await open_page()
    await stall(page, fake)
    await _delete(page, "Count")
    await page.click("#toast button:has-text('Undo')")
    await page.wait_for_selector(".answer:has-text('0 1 2')")


async def test_settings_and_turns_of_two_tabs_are_merged(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    await say(page, "Hello")
    await answered(page)
    other = await _second_tab(page)
    await answered(other)
    await other.click("#open-settings")
    await other.fill("#system", "You are a pirate.")
    await other.keyboard.press("Escape")
    await page.bring_to_front()
    await page.hover(".open")
    await page.click("[aria-label='Rename: Hello']")
    await page.fill(".list-name", "Ahoy")
    await page.press(".list-name", "Enter")
    await other.wait_for_selector(".open:text('Ahoy')")
    await say(page, "Again")
    await answered(page, 2)
    (conversation,) = await stored(page)
    assert conversation["title"] == "Ahoy"
    assert conversation["system"] == "You are a pirate."
    assert len(conversation["messages"]) == 4


NOTES = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"Remember"}


@IN_BOTH
async def test_undo_brings_the_draft_back(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    await say(page, "Hello")
    await answered(page)
    await page.set_input_files("#attach-file", NOTES)
    await page.wait_for_selector("#attachments .size")
    await page.fill("#message", "What I was typing")
    await _delete(page, "Hello")
    await wait_for_count(page, ".message", 0)
    assert await page.input_value("#message") == ""
    kept = await page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert "typing" not in kept
    await page.click("#toast button:has-text('Undo')")
    await answered(page)
    assert await page.input_value("#message") == "What I was typing"
    await page.wait_for_selector("#attachments:has-text('notes.txt')")


async def test_several_deletions_are_undone_together(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    for title in ("One", "Two", "Three"):
        await page.click("#new")
        await say(page, title)
        await answered(page)
    for title in ("Two", "One"):
        await page.focus(f".open:text-is('{title}')")
        await page.click(f"[aria-label='Delete: {title}']")
        await page.wait_for_selector(f".open:text-is('{title}')", state="detached")
    await page.click("#toast:has-text('Deleted 2 conversations.') button:has-text('Undo')")
    await wait_for_count(page, "#list .open", 3)
    assert await page.locator("#toast *").count() == 0
    await page.focus(".open:text-is('Two')")
    await page.click("[aria-label='Delete: Two']")
    await page.wait_for_selector("#toast:has-text('Deleted “Two”.')")
    await page.click("#toast [aria-label=Close]")
    await page.focus(".open:text-is('One')")
    await page.click("[aria-label='Delete: One']")
    await page.wait_for_selector("#toast:has-text('Deleted “One”.')")  # the other one is settled


async def test_what_is_typed_outlives_a_deletion_in_another_tab(
    open_page: Open, fake: FakeOllama
) -> None:
    page = await open_page()
    await page.fill("#message", "A new thought")
    await page.click("#new")
    other = await _second_tab(page)
    await say(other, "Hello")
    await answered(other)
    await page.click(".open:text('Hello')")
    await answered(page)
    await page.set_input_files("#attach-file", NOTES)
    await page.wait_for_selector("#attachments .size")
    await page.fill("#message", "What I was typing")
    await _delete(other, "Hello")
    await page.wait_for_selector("#toast:has-text('deleted in another tab')")
    expected = "A new thought\n\nWhat I was typing"
    assert await page.input_value("#message") == expected
    await page.wait_for_selector("#attachments:has-text('notes.txt')")
    await page.reload()
    await page.wait_for_selector("#attachments:has-text('notes.txt')")
    assert await page.input_value("#message") == expected


async def test_a_failure_is_over_in_all_tabs_once_the_answer_goes_on(
    open_page: Open, fake: FakeOllama
) -> None:
    page = await open_page()
    fake.reply(after(3, lambda connection: connection.reset()), tokens([" and", " on"]))
    await say(page, "Count")
    await page.wait_for_selector(".notice .resume")
    other = await _second_tab(page)
    await other.wait_for_selector(".notice .resume")
    await page.click(".notice .resume")
    for tab in (page, other):
        await tab.wait_for_selector(".answer:has-text('0 1 2 and on')")
        await answered(tab)
        assert await tab.locator(".notice").count() == 0
    await say(other, "Thanks")
    await answered(other, 2)
    assert all("failure" not in message for message in (await stored(other))[0]["messages"])


async def test_a_new_tab_learns_at_once_what_is_being_written(
    open_page: Open, fake: FakeOllama
) -> None:
    page = await open_page()
    await page.add_init_script(
        "const real = setInterval; setInterval = (f, ms) => real(f, ms === 1000 ? 1e9 : ms);"
    )  # it does not announce what it writes again and again
    await page.reload()
    await stall(page, fake)
    other = await _second_tab(page)
    await other.wait_for_selector(".progress:text('Another tab is receiving this answer')")


SLOW = """
  const { get } = IDBObjectStore.prototype;
  const success = Object.getOwnPropertyDescriptor(IDBRequest.prototype, "onsuccess");
  window.slow = false;
  window.reads = 0;
  IDBObjectStore.prototype.get = function (key) {
    const request = get.call(this, key);
    if (!window.slow || this.transaction.mode !== "readonly") return request;
    window.reads += 1;
    const set = (call) => success.set.call(request, () => setTimeout(call, 1000));
    Object.defineProperty(request, "onsuccess", { set });
    return request;
  };
"""
"""Reading a large conversation takes a while; `reads` counts those that have begun."""


@pytest.mark.parametrize("then", ["new", "another"])
async def test_news_of_a_conversation_that_was_left_changes_no_other(
    then: str, open_page: Open, fake: FakeOllama
) -> None:
    page = await open_page()
    for title in ("Alpha", "Beta"):
        await page.click("#new")
        await say(page, title)
        await answered(page)
    other = await _second_tab(page, SLOW)
    for tab in (page, other):
        await tab.click(".open:text('Alpha')")
        await tab.wait_for_selector(".user:has-text('Alpha')")
    await other.evaluate("window.slow = true")
    if then == "another":
        await other.click(".open:text('Beta')")
    await say(page, "More")

    async def heard() -> bool:
        return bool(await other.evaluate("window.reads") > (then == "another"))

    await wait_until(heard)
    if then == "new":
        await other.click("#new")
    await answered(page, 2)
    await other.wait_for_timeout(1500)
    await other.evaluate("window.slow = false")
    await say(other, "Last")
    await answered(other, 1 if then == "new" else 2)
    asked = {
        talk["title"]: [told["text"] for told in talk["messages"] if told["role"] == "user"]
        for talk in await stored(page)
    }
    last = {"Last": ["Last"], "Beta": ["Beta"]} if then == "new" else {"Beta": ["Beta", "Last"]}
    assert asked == {"Alpha": ["Alpha", "More"], **last}


async def test_a_conversation_that_is_loaded_late_replaces_none(open_page: Open) -> None:
    page = await open_page()
    await say(page, "Alpha")
    await answered(page)
    other = await _second_tab(page, SLOW)
    await other.evaluate("window.slow = true")
    await other.click("#new")
    await other.click(".open:text('Alpha')")
    await wait_until(lambda: other.evaluate("window.reads > 0"))
    await other.click("#new")
    await other.wait_for_timeout(1500)
    assert await _told(other) == []
