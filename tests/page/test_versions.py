"""Versions: an edit or another answer replaces nothing."""

import json
from pathlib import Path
from typing import Any

from tests.fake_ollama import FakeOllama, after, error, tokens
from tests.page.conftest import IN_BOTH, Open
from tests.page.conversation import answered, say, stored, wait_for_count, wait_until


async def _edit(page: Any, at: int, text: str) -> None:
    message = page.locator(".user").nth(at)
    await message.hover()
    await message.get_by_label("Edit").click()
    await page.fill(".edit textarea", text)
    await page.press(".edit textarea", "Enter")


@IN_BOTH
async def test_versions_of_answers_and_questions(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    fake.reply(*(tokens([text]) for text in ("One", "Two", "Three", "More", "Other")))
    await say(page, "Say a number")
    await answered(page)
    for text in ("Two", "Three"):
        await page.locator(".assistant").last.get_by_label("Regenerate").click()
        await page.wait_for_selector(f".answer:has-text('{text}')")
        await answered(page)
    await say(page, "And then?")
    await answered(page, 2)
    versions = page.locator(".assistant").first.locator(".versions")
    assert await versions.inner_text() == "3/3"
    assert await versions.get_attribute("aria-label") == "Version 3 of 3"
    await versions.get_by_label("Previous version").click()
    await page.wait_for_selector(".answer:has-text('Two')")
    await wait_for_count(page, ".message", 2)
    await page.reload()
    await page.wait_for_selector(".answer:has-text('Two')")
    await page.get_by_label("Next version").click()
    await page.wait_for_selector(".answer:has-text('More')")
    assert await page.locator(".message").count() == 4

    await _edit(page, 0, "Say another")
    await page.wait_for_selector(".answer:has-text('Other')")
    await answered(page)
    question = page.locator(".user").first
    assert await question.locator(".versions").inner_text() == "2/2"
    await question.get_by_label("Previous version").click()
    await page.wait_for_selector(".answer:has-text('More')")


async def test_the_keyboard_stays_at_the_versions(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    await say(page, "Hello")
    await answered(page)
    for _ in range(2):
        await page.keyboard.press("Alt+r")
        await answered(page)
    await page.focus("[aria-label='Previous version']")
    await page.keyboard.press("Enter")
    await page.wait_for_selector(".versions:has-text('2/3')")
    await page.keyboard.press("Enter")
    await page.wait_for_selector(".versions:has-text('1/3')")


async def test_a_failure_without_words_is_no_version(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    fake.reply(error(500, "boom"), tokens(["Fine"]))
    await say(page, "Hello")
    await page.click(".notice button")
    await page.wait_for_selector(".answer:has-text('Fine')")
    assert await page.locator(".versions").count() == 0
    (conversation,) = await stored(page)
    assert len(conversation["messages"]) == 2


async def test_branch_from_here(
    open_page: Open, fake: FakeOllama, sent: list[dict[str, Any]]
) -> None:
    page = await open_page()
    for count, text in enumerate(["One", "Two"], 1):
        await say(page, text)
        await answered(page, count)
    await page.locator(".assistant").first.get_by_label("Branch from here").click()
    await wait_for_count(page, ".message", 2)
    await wait_for_count(page, "#list .open", 2)
    await say(page, "Elsewhere")
    await answered(page, 2)
    assert [message["content"] for message in sent[-1]["messages"]] == [
        "One",
        "The capital of France is Paris.",
        "Elsewhere",
    ]
    counts = sorted(len(conversation["messages"]) for conversation in await stored(page))
    assert counts == [4, 4]


async def test_versions_travel(open_page: Open, fake: FakeOllama, tmp_path: Path) -> None:
    page = await open_page()
    fake.reply(*(tokens([text]) for text in ("First", "Second", "Third", "# Fourth")))
    await say(page, "Numbers")
    await answered(page)
    await say(page, "Next")
    await answered(page, 2)
    await page.keyboard.press("Alt+r")
    await page.wait_for_selector(".answer:has-text('Third')")
    await answered(page, 2)
    await _edit(page, 0, "More numbers")
    await page.wait_for_selector(".answer h1:has-text('Fourth')")
    await answered(page)

    async def is_saved() -> bool:
        return "# Fourth" in json.dumps(await stored(page))

    await wait_until(is_saved)
    (before,) = await stored(page)

    await page.focus(".open")
    async with page.expect_download() as download:
        await page.click("[aria-label='Save as Markdown: Numbers']")
    await (await download.value).save_as(tmp_path / "numbers.md")
    assert (tmp_path / "numbers.md").read_text() == (
        "# Numbers\n\n"
        "<!-- user -->\n## User\n\nMore numbers\n\n"
        "<!-- assistant -->\n## llama3.1:70b\n\n# Fourth\n\n"
        "<!-- versions -->\n# Other versions\n\n"
        "<!-- user after 0 -->\n## User\n\nNumbers\n\n"
        "<!-- assistant -->\n## llama3.1:70b\n\nFirst\n\n"
        "<!-- user -->\n## User\n\nNext\n\n"
        "<!-- assistant -->\n## llama3.1:70b\n\nSecond\n\n"
        "<!-- assistant after 5 -->\n## llama3.1:70b\n\nThird\n"
    )
    (tmp_path / "all.json").write_text(json.dumps({"conversations": [before]}))
    # A Markdown file begins with what is in view, so that comes first among its versions.
    for name, place, step in (
        ("all.json", "2/2", "Previous version"),
        ("numbers.md", "1/2", "Next version"),
    ):
        other = await open_page()
        await other.click("#open-settings")
        await other.set_input_files("#import-file", tmp_path / name)
        await other.wait_for_selector("#import-result:has-text('1 conversation imported')")
        await other.keyboard.press("Escape")
        await other.click(".open")
        await other.wait_for_selector(".answer h1:has-text('Fourth')")
        assert await other.locator(".user .versions").inner_text() == place
        await other.locator(".user").first.get_by_label(step).click()
        await other.wait_for_selector(".answer:has-text('First')")
        await wait_for_count(other, ".message", 4)
        assert await other.locator(".assistant .versions").inner_text() == "2/2"


async def test_conversations_of_before_still_open(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    old = {
        "id": "an-old-one",
        "title": "Old",
        "created": 1_700_000_000_000,
        "updated": 1_700_000_000_000,
        "system": "",
        "temperature": None,
        "think": False,
        "contexts": {"llama3.1:70b": [1, 2, 3]},
        "messages": [
            {"role": "user", "text": "Hi", "images": []},
            {
                "role": "assistant",
                "model": "llama3.1:70b",
                "text": "Yo",
                "ended": "stop",
                "context": 3,
            },
        ],
    }
    await page.evaluate(
        """async (old) => {
          const url = document.querySelector("script[src$='main.js']").src;
          const db = await import(new URL("../vendor/idb-keyval/index.js", url));
          const { id, title, updated } = old;
          await db.set(id, old, db.createStore("conversations", "conversations"));
          await db.set(id, { id, title, updated }, db.createStore("outlines", "conversations"));
        }""",
        old,
    )
    await page.reload()
    await page.wait_for_selector("#list .day:has-text('November 2023')")
    await page.click(".open:text('Old')")
    await page.wait_for_selector(".answer:has-text('Yo')")
    await say(page, "Still there?")
    await answered(page, 2)
    (conversation,) = await stored(page)
    told = [message["text"] for message in conversation["messages"]]
    assert told[:3] == ["Hi", "Yo", "Still there?"]
    assert "contexts" not in conversation


async def test_an_imported_answer_that_broke_off_can_be_continued(
    open_page: Open, fake: FakeOllama, tmp_path: Path
) -> None:
    page = await open_page()
    fake.reply(after(3, lambda connection: connection.reset()), tokens([" and", " on"]))
    await say(page, "Count")
    await page.wait_for_selector(".notice .resume")
    (broken,) = await stored(page)
    (tmp_path / "all.json").write_text(json.dumps({"conversations": [broken]}))
    other = await open_page()
    await other.click("#open-settings")
    await other.set_input_files("#import-file", tmp_path / "all.json")
    await other.wait_for_selector("#import-result:has-text('1 conversation imported')")
    await other.keyboard.press("Escape")
    await other.click(".open")
    await other.click(".aside:has-text('The answer was cut off.') .resume")
    await other.wait_for_selector(".answer:has-text('0 1 2 and on')")


async def test_an_unfinished_edit_outlives_a_reload(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    for count, text in enumerate(["One", "Two"], 1):
        await say(page, text)
        await answered(page, count)
    first = page.locator(".user").first
    await first.hover()
    await first.get_by_label("Edit").click()
    await page.fill(".edit textarea", "One and a h")
    await page.reload()
    await page.wait_for_selector(".edit textarea")
    await page.click("#new")
    await page.click("#list .open")
    assert await page.input_value(".edit textarea") == "One and a h"
    await page.press(".edit textarea", "Enter")
    await wait_for_count(page, ".message", 2)
    await answered(page)
    await page.get_by_label("Previous version").click()
    await wait_for_count(page, ".message", 4)
    assert await page.inner_text(".user .text >> nth=0") == "One"
    assert await page.locator(".edit").count() == 0
    await first.hover()
    await first.get_by_label("Edit").click()
    await page.fill(".edit textarea", "Never mind")
    await page.press(".edit textarea", "Escape")
    await page.reload()
    await wait_for_count(page, ".message", 4)
    assert await page.locator(".edit").count() == 0
