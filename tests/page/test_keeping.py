"""Conversations are kept in the browser, and can be searched, renamed, exported and deleted."""

import asyncio
import json
from pathlib import Path
from typing import Any
from unicodedata import normalize

from tests.fake_ollama import FakeOllama, tokens
from tests.page.conftest import Open
from tests.page.conversation import answered, say, stall, stored, wait_for_count, wait_until


async def _titles(page: Any) -> list[str]:
    titles: list[str] = await page.locator("#list .open").all_inner_texts()
    return titles


async def test_reload_keeps_a_conversation_and_goes_on_with_it(
    open_page: Open, fake: FakeOllama, sent: list[dict[str, Any]]
) -> None:
    page = await open_page()
    await say(page, "안녕하세요!\nMore")
    await answered(page)
    await page.reload()
    await page.wait_for_selector(".answer:has-text('Paris')")
    assert await _titles(page) == ["안녕하세요!"]
    await say(page, "Go on")
    await answered(page, 2)
    assert [message["content"] for message in sent[-1]["messages"]] == [
        "안녕하세요!\nMore",
        "The capital of France is Paris.",
        "Go on",
    ]


async def test_a_title_does_not_end_in_half_an_emoji(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    await say(page, f"{'a' * 59}😀 and more")
    await answered(page)
    assert await _titles(page) == ["a" * 59]


async def test_partial_answer_outlives_a_reload(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    await stall(page, fake)

    async def is_kept() -> bool:
        return any(
            message["text"] == " 0 1 2"
            for conversation in await stored(page)
            for message in conversation["messages"]
        )

    async with asyncio.timeout(2.2):
        await wait_until(is_kept)
    await page.reload()
    await page.wait_for_selector(".answer:has-text('0 1 2')")
    assert "The page was closed before" in await page.inner_text(".assistant")


async def test_search_finds_hangul_in_either_form(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    await say(page, normalize("NFD", "한국어"))
    await answered(page)
    await page.fill("#search", "nowhere")
    await page.wait_for_selector("#list:has-text('Nothing found')")
    await page.fill("#search", "한국")
    await wait_for_count(page, "#list .open", 1)


async def test_list(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    for text in ("About cats", "About dogs", "About 고양이"):
        await page.click("#new")
        await say(page, text)
        await answered(page)
    assert await _titles(page) == ["About 고양이", "About dogs", "About cats"]

    await page.fill("#search", "고양이 about")
    await wait_for_count(page, "#list .open", 1)
    await page.fill("#search", "paris")
    await wait_for_count(page, "#list .open", 3)
    await page.fill("#search", "nowhere")
    await page.wait_for_selector("#list:has-text('Nothing found')")
    await page.fill("#search", "")
    await wait_for_count(page, "#list .open", 3)

    await page.focus(".open:text('About dogs')")
    await page.click("[aria-label='Rename: About dogs']")
    await page.fill(".list-name", "About puppies")
    await page.press(".list-name", "Enter")
    await page.wait_for_selector(".open:text('About puppies')")

    await page.focus(".open:text('About cats')")
    await page.click("[aria-label='Delete: About cats']")
    await wait_for_count(page, "#list .open", 2)
    assert sorted([conversation["title"] for conversation in await stored(page)]) == [
        "About puppies",
        "About 고양이",
    ]


async def test_export_and_import(open_page: Open, fake: FakeOllama, tmp_path: Path) -> None:
    page = await open_page()
    fake.reply(tokens(["**Paris**, ", "파리\n\n## User\n\nx"]))
    await say(page, "Capital?")
    await answered(page)
    before = await stored(page)

    await page.focus(".open")
    async with page.expect_download() as download:
        await page.click("[aria-label='Save as Markdown: Capital?']")
    await (await download.value).save_as(tmp_path / "capital.md")
    assert (tmp_path / "capital.md").read_text() == (
        "# Capital?\n\n<!-- user -->\n## User\n\nCapital?\n\n"
        "<!-- assistant -->\n## llama3.1:70b\n\n**Paris**, 파리\n\n## User\n\nx\n"
    )

    await page.click("#open-settings")
    async with page.expect_download() as download:
        await page.click("#export-all")
    await (await download.value).save_as(tmp_path / "all.json")

    other = await open_page()
    await other.click("#open-settings")
    await other.set_input_files("#import-file", tmp_path / "all.json")
    await other.wait_for_selector("#import-result:has-text('1 conversation imported')")
    (after,) = await stored(other)
    assert {**after, "messages": []} == {**before[0], "messages": []}
    assert after["messages"] == before[0]["messages"]
    (tmp_path / "other.txt").write_text("# No export")
    await other.set_input_files("#import-file", tmp_path / "other.txt")
    await other.wait_for_selector("#import-result:has-text('neither an export')")

    await other.set_input_files("#import-file", tmp_path / "capital.md")
    await wait_for_count(other, "#list .open", 2)
    told = [
        [(message["role"], message["text"]) for message in conversation["messages"]]
        for conversation in await stored(other)
    ]
    assert told[0] == told[1]


async def test_import_takes_nothing_away(open_page: Open, fake: FakeOllama, tmp_path: Path) -> None:
    page = await open_page()
    await say(page, "Hello")
    await answered(page)
    (own,) = await stored(page)
    other = {**own, "title": "Another", "messages": own["messages"][:1]}
    (tmp_path / "x.json").write_text(json.dumps({"conversations": [own, other]}))
    await page.click("#open-settings")
    await page.set_input_files("#import-file", tmp_path / "x.json")
    await page.wait_for_selector("#import-result:has-text('2 conversations imported')")
    await wait_for_count(page, "#list .open", 2)
    assert own in await stored(page)


async def test_import_shows_what_it_adds_to_the_open_conversation(
    open_page: Open, tmp_path: Path
) -> None:
    page = await open_page()
    await say(page, "Hello")
    await answered(page)
    (own,) = await stored(page)
    question, answer = own["messages"]
    more = {**question, "id": "more", "parent": answer["id"], "text": "More"}
    longer = {**own, "messages": [question, answer, more], "leaf": "more"}
    (tmp_path / "x.json").write_text(json.dumps({"conversations": [longer]}))
    await page.click("#open-settings")
    await page.set_input_files("#import-file", tmp_path / "x.json")
    await page.wait_for_selector("#import-result:has-text('1 conversation imported')")
    await page.keyboard.press("Escape")
    await page.wait_for_selector(".user:has-text('More')")


async def test_tabs_agree(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    other = await page.context.new_page()
    await other.goto(page.url)
    await say(page, "Hello")
    await other.wait_for_selector(".open:text('Hello')")


async def test_nothing_is_stored_elsewhere(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    await say(page, "A secret")
    await answered(page)
    kept = await page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert "secret" not in kept
    assert await page.context.cookies() == []


async def test_pins_dates_and_what_was_found(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    fake.reply(tokens(["Lyon lies on the Rhône, where it meets the **Saône**."]))
    for text in ("About Lyon", "About dogs"):
        await page.click("#new")
        await say(page, text)
        await answered(page)
    assert await page.locator("#list .day").all_inner_texts() == ["Today"]
    await page.focus(".open:text('About Lyon')")
    await page.click("[aria-label='Pin: About Lyon']")
    await page.wait_for_selector("[aria-label='Pin: About Lyon'][aria-pressed=true]")
    assert await page.locator("#list .day").all_inner_texts() == ["Pinned", "Today"]
    assert (await _titles(page))[0] == "About Lyon"
    await page.reload()
    await wait_for_count(page, "#list .day", 2)
    await page.fill("#search", "saône meets")
    await page.wait_for_selector("#list mark")
    assert await page.locator("#list mark").all_inner_texts() == ["meets", "Saône"]
    await page.fill("#search", "LYON saône")
    await page.wait_for_selector(".open > mark")
    assert await page.locator("#list mark").all_inner_texts() == ["Lyon", "Lyon", "Saône"]


async def test_what_was_found_in_a_file_is_shown_without_markup(
    open_page: Open, fake: FakeOllama
) -> None:
    page = await open_page()
    file = {"name": "plan.csv", "mimeType": "text/csv", "buffer": b"month,sales\nMay,12"}
    await page.set_input_files("#attach-file", file)
    await page.wait_for_selector("#attachments .size")
    await say(page, "Sum it up")
    await answered(page)
    for query, found in (("sum", "Sum it up"), ("may", "month,sales May,12"), ("plan", "plan.csv")):
        await page.fill("#search", query)
        excerpt = page.locator(f".excerpt:has-text('{found}')")
        await excerpt.wait_for()
        assert await excerpt.inner_text() == found
    await page.fill("#search", "file name")
    await page.wait_for_selector("#list:has-text('Nothing found')")
