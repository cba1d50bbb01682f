"""Files for a model: by button, drop and paste; their text, size and length."""

from base64 import b64decode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fake_ollama import FakeOllama, tokens
from tests.page import pdf
from tests.page.conftest import IN_BOTH, Open
from tests.page.conversation import answered, prompt_of, say, stored, wait_for_count, wait_until

CSV = "월,매출\n1월,12\n"

TRANSFER = """(files) => {
  const transfer = new DataTransfer();
  for (const [name, type, bytes] of files) {
    transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
  }
  return transfer;
}"""

PASTE = """([transfer, text, html]) => {
  if (text) transfer.setData("text/plain", text);
  if (html) transfer.setData("text/html", html);
  const clipboardData = transfer;
  const event = new ClipboardEvent("paste", { clipboardData, cancelable: true });
  document.querySelector("#message").dispatchEvent(event);
  return event.defaultPrevented;
}"""


async def _transfer(page: Any, name: str, type_: str, data: bytes) -> Any:
    return await page.evaluate_handle(TRANSFER, [[name, type_, list(data)]])


async def _add(page: Any, name: str, data: bytes, type_: str = "") -> None:
    await page.set_input_files("#attach-file", {"name": name, "mimeType": type_, "buffer": data})


@IN_BOTH
async def test_text_and_pdf_are_sent_to_the_model(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    loaded = "performance.getEntriesByType('resource').filter(({name}) => name.includes('pdf'))"
    await _add(page, "매출.csv", CSV.encode("cp949"), "text/csv")
    await page.wait_for_selector("#attachments .file:has-text('매출.csv')")
    assert await page.evaluate(f"{loaded}.length") == 0
    await _add(page, "report.pdf", pdf.REPORT, "application/pdf")
    chip = page.locator("#attachments .file:has-text('report.pdf')")
    await chip.wait_for()
    assert "1.1 kB · about 14 tokens" in await chip.inner_text()
    await say(page, "Summarise both.")
    await answered(page)
    assert prompt_of(fake, 0) == (
        f'<file name="매출.csv">\n{CSV.strip()}\n</file>\n\n'
        '<file name="report.pdf">\nQuarterly report\nSales rose by 12 %.\n'
        f"{pdf.KOREAN}\n</file>\n\n"
        "Summarise both."
    )
    assert await page.locator("#attachments li").count() == 0
    await page.reload()
    await wait_for_count(page, ".user details.file", 2)
    assert await page.inner_text(".user .text") == "Summarise both."
    await page.click(".user summary:has-text('report.pdf')")
    await page.wait_for_selector(".user pre:has-text('Sales rose')")
    await page.hover(".user")
    await page.click(".user [aria-label=Edit]")
    await page.fill(".edit textarea", "Only the table.")
    await page.press(".edit textarea", "Enter")
    await fake.wait_for(2)
    assert prompt_of(fake, 1).endswith("</file>\n\nOnly the table.")


@pytest.mark.parametrize("how", ["drop", "paste"])
async def test_dropped_and_pasted(how: str, open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    transfer = await _transfer(page, "notes.md", "text/markdown", "# 메모".encode())
    if how == "drop":
        await page.dispatch_event("#messages", "drop", {"dataTransfer": transfer})
    else:
        assert await page.evaluate(PASTE, [transfer, "notes.md", ""]) is True
    await page.wait_for_selector("#attachments .file:has-text('notes.md')")
    await page.click("#send")
    await answered(page)
    assert prompt_of(fake, 0) == '<file name="notes.md">\n# 메모\n</file>'
    assert [talk["title"] for talk in await stored(page)] == ["notes.md"]


async def test_text_of_a_spreadsheet_is_pasted_as_text(open_page: Open) -> None:
    page = await open_page()
    picture = await _transfer(page, "image.png", "image/png", b"x")
    assert await page.evaluate(PASTE, [picture, "1\t2", "<table></table>"]) is False
    assert await page.locator("#attachments li").count() == 0


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("x.docx", b"PK\x03\x04\0\0", "neither text nor a PDF"),
        ("x.txt", b" \n", "x.txt is empty"),
        ("x.pdf", b"%PDF-1.7 but no more", "damaged"),
        ("x.pdf", pdf.SCANNED, "contains no text"),
        ("x.pdf", pdf.LOCKED, "protected by a password"),
    ],
    ids=["binary", "empty", "broken", "scanned", "locked"],
)
async def test_unreadable_files_are_refused_in_words(
    name: str, data: bytes, problem: str, open_page: Open
) -> None:
    page = await open_page()
    await _add(page, name, data)
    await page.wait_for_selector(f"#notice:has-text('{problem}')")
    assert await page.locator("#attachments li").count() == 0


async def test_what_a_new_version_has_replaced_is_missed_in_words(
    open_page: Open, fake: FakeOllama
) -> None:
    page = await open_page()
    await page.context.route("**/vendor/**", lambda route: route.fulfill(status=404))
    await _add(page, "x.pdf", pdf.SCANNED)
    await page.wait_for_selector("#notice:has-text('x.pdf cannot be read, because a part')")
    fake.reply(tokens(["```python\nx = 1\n```"]))
    await say(page, "Code")
    await answered(page)
    assert await page.inner_text(".answer code") == "x = 1\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp949"])
async def test_encodings(encoding: str, open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    await _add(page, "x.txt", "한국어, English\r\n똠방각하".encode(encoding))
    await page.wait_for_selector("#attachments .file:has-text('x.txt')")
    await say(page, "?")
    await answered(page)
    assert "\n한국어, English\n똠방각하\n" in prompt_of(fake, 0)


async def test_over_long_is_refused_before_it_is_sent(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()

    async def told(route: Any) -> None:
        answer = await (await route.fetch()).json()
        await route.fulfill(json={**answer, "context_lengths": {"llama3.1:70b": 4096}})

    await page.route("**/api/models*", told)
    await page.reload()
    await wait_for_count(page, "#model option", 2)
    await _add(page, "long.txt", b"word " * 4000)
    await page.wait_for_selector("#attachments .file:has-text('about 5,000 tokens')")
    await say(page, "Summarise.")
    await page.wait_for_selector("#notice:has-text('llama3.1:70b handles 4,096 at most')")
    assert fake.asked() == []
    assert await page.input_value("#message") == "Summarise."
    await page.click("#attachments button")
    await page.press("#message", "Enter")
    await answered(page)
    assert prompt_of(fake, 0) == "Summarise."
    assert await page.inner_text("#notice") == ""


async def test_context_length_is_that_of_the_loaded_model(
    open_page: Open, fake: FakeOllama
) -> None:
    """Ollama gives the model 2,048 of the 100,000 tokens that it was trained for."""
    fake.context_length = 100_000
    page = await open_page()
    await wait_for_count(page, "#model option", 2)
    await _add(page, "long.txt", b"word " * 1000)
    await page.wait_for_selector("#attachments .file")
    async with page.expect_response("**/api/models*"):
        await say(page, "Summarise.")
        await answered(page)
    await _add(page, "long.txt", b"word " * 1000)
    await page.wait_for_selector("#attachments .file")
    await say(page, "Summarise.")
    await page.wait_for_selector("#notice:has-text('llama3.1:70b handles 2,048 at most')")
    assert len(fake.asked()) == 1


async def test_files_are_exported_and_imported(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    await _add(page, "x.csv", b"a,b")
    await page.wait_for_selector("#attachments .file:has-text('x.csv')")
    await say(page, "?")
    await answered(page)
    await page.click("#open-settings")
    async with page.expect_download() as download:
        await page.click("#export-all")
    file = await (await download.value).path()
    other = await open_page()
    await other.set_input_files("#import-file", file)
    await other.click(".open")
    await other.wait_for_selector(".user details.file:has-text('x.csv')")
    assert (await stored(other))[0]["messages"] == (await stored(page))[0]["messages"]


PNG = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@IN_BOTH
async def test_an_image_alone_is_sent(open_page: Open, fake: FakeOllama) -> None:
    fake.capabilities = ["completion", "vision"]
    page = await open_page(locale="ko-KR")
    await _add(page, "point.png", PNG, "image/png")
    await page.wait_for_selector("#attachments img")
    await page.press("#message", "Enter")
    await answered(page)

    def images() -> list[int]:
        return [len(message.get("images", [])) for message in fake.asked()[-1].json["messages"]]

    assert images() == [1]
    assert await page.locator(".user .pictures img").count() == 1
    assert [talk["title"] for talk in await stored(page)] == ["이미지"]
    await say(page, "무엇이 보여?")
    await answered(page, 2)
    assert images() == [1, 0, 0]
    await page.hover(".user")
    await page.click(".user >> nth=0 >> [aria-label='편집']")
    await page.click(".edit .primary")
    await wait_for_count(page, ".user", 1)
    await answered(page)
    assert images() == [1]


async def _attached(page: Any) -> list[str]:
    """Return the names of the attachments; an image has none."""
    names: list[str] = await page.locator("#attachments li").evaluate_all(
        "(items) => items.map((item) => item.querySelector('.name')?.textContent ?? '')"
    )
    return names


async def _parcels(page: Any) -> int:
    count: int = await page.evaluate(
        """() => new Promise((resolve) => {
          const opening = indexedDB.open("drafts");
          opening.onsuccess = () => {
            const counting = opening.result.transaction("drafts").objectStore("drafts").count();
            counting.onsuccess = () => resolve(counting.result);
          };
        })"""
    )
    return count


async def _kept(page: Any, count: int) -> None:
    """Wait until as many drafts have attachments that are stored."""

    async def reached() -> bool:
        return await _parcels(page) == count

    await wait_until(reached)


@IN_BOTH
async def test_what_is_attached_outlives_a_reload(open_page: Open, fake: FakeOllama) -> None:
    fake.capabilities = ["completion", "vision"]
    page = await open_page()
    await _add(page, "notes.txt", b"Remember", "text/plain")
    await _add(page, "point.png", PNG, "image/png")
    await page.fill("#message", "Look")
    await wait_for_count(page, "#attachments li", 2)
    await _kept(page, 1)
    await page.reload()
    await wait_for_count(page, "#attachments li", 2)
    assert await _attached(page) == ["notes.txt", ""]
    assert await page.input_value("#message") == "Look"

    await page.click("#attachments .file button")
    await wait_for_count(page, "#attachments li", 1)
    await page.reload()
    await wait_for_count(page, "#attachments li", 1)
    await page.click("#send")
    await answered(page)
    await _kept(page, 0)

    await _add(page, "later.txt", b"Later", "text/plain")
    await wait_for_count(page, "#attachments li", 1)
    await page.click("#new")
    await wait_for_count(page, "#attachments li", 0)
    await page.click("#list .open")
    await wait_for_count(page, "#attachments li", 1)
    assert await _attached(page) == ["later.txt"]
    await page.reload()
    await wait_for_count(page, "#attachments li", 1)
    await page.click("#attachments button")
    await _kept(page, 0)
    await page.reload()
    await page.wait_for_selector(".answer")
    assert await _attached(page) == []


SLOW_FILES = """
  const { arrayBuffer } = Blob.prototype;
  Blob.prototype.arrayBuffer = async function () {
    await new Promise((resolve) => (window.readOn = resolve));
    return arrayBuffer.call(this);
  };
"""


async def _reads_slowly(open_page: Open) -> Any:
    """Return a page with a conversation, in which a file is read until `window.readOn()`."""
    page = await open_page()
    await page.add_init_script(SLOW_FILES)
    await page.reload()
    await say(page, "Hello")
    await answered(page)
    await _add(page, "slow.txt", b"Slow", "text/plain")
    await page.wait_for_selector("#attachments:has-text('Reading')")
    return page


@IN_BOTH
@pytest.mark.parametrize("back", ["before", "after"])
async def test_a_file_read_meanwhile_stays_with_its_conversation(
    back: str, open_page: Open, fake: FakeOllama
) -> None:
    page = await _reads_slowly(open_page)
    await page.click("#new")
    if back == "before":
        await page.click("#list .open")
        await page.wait_for_selector(".answer")
    await page.evaluate("window.readOn()")
    await wait_for_count(page, "#attachments li:has-text('Reading')", 0)
    if back == "after":
        assert await _attached(page) == []
        await page.click("#list .open")
    await wait_for_count(page, "#attachments li", 1)
    assert await _attached(page) == ["slow.txt"]
    await _kept(page, 1)
    await page.reload()
    await wait_for_count(page, "#attachments li", 1)


@pytest.mark.parametrize("where", ["here", "in another tab"])
async def test_a_file_read_while_its_conversation_is_deleted_is_not_kept_for_nobody(
    where: str, open_page: Open, fake: FakeOllama
) -> None:
    page = deleting = await _reads_slowly(open_page)
    if where != "here":
        deleting = await page.context.new_page()
        await deleting.goto(page.url)
    await deleting.hover(".open")
    await deleting.click("[aria-label='Delete: Hello']")
    await wait_for_count(page, ".message", 0)
    await page.evaluate("window.readOn()")
    await wait_for_count(page, "#attachments li:has-text('Reading')", 0)
    left = [] if where == "here" else ["slow.txt"]  # whoever did not delete it keeps the draft
    await _kept(page, len(left))
    assert await _attached(page) == left


async def test_what_a_closed_tab_had_attached_is_forgotten_after_a_week(open_page: Open) -> None:
    page = await open_page()
    await _add(page, "notes.txt", b"Remember", "text/plain")
    await _kept(page, 1)
    await page.evaluate("sessionStorage.clear()")
    await page.clock.install()
    await page.reload()
    await page.wait_for_selector("#welcome h2")
    assert await _parcels(page) == 1
    await page.clock.set_fixed_time(datetime.now(UTC) + timedelta(days=8))
    await page.reload()
    await _kept(page, 0)


async def test_an_edit_or_another_model_may_be_over_long_too(
    open_page: Open, fake: FakeOllama
) -> None:
    limit = 200

    async def told(route: Any) -> None:
        answer = await (await route.fetch()).json()
        await route.fulfill(json={**answer, "context_lengths": {"llama3.1:70b": limit}})

    page = await open_page()
    await page.route("**/api/models*", told)
    await page.reload()
    await wait_for_count(page, "#model option", 2)
    await say(page, "Hello")
    await answered(page)
    await page.hover(".user")
    await page.click(".user [aria-label=Edit]")
    await page.fill(".edit textarea", "word " * 400)
    await page.press(".edit textarea", "Enter")
    await page.wait_for_selector("#notice:has-text('This is about 500 tokens')")
    assert await page.input_value(".edit textarea") == "word " * 400
    limit = 1
    await page.reload()
    await wait_for_count(page, "#model option", 2)
    await page.click(".assistant [aria-label=Regenerate]")
    await page.wait_for_selector("#notice:has-text('handles 1 at most')")
    assert len(fake.asked()) == 1


async def test_each_problem_with_files_is_told(open_page: Open, tmp_path: Path) -> None:
    page = await open_page()
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.txt").touch()
    (tmp_path / "fine.txt").write_text("Fine")
    box = await page.locator("#composer").bounding_box()
    devtools = await page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        await devtools.send(
            "Input.dispatchDragEvent",
            {
                "type": kind,
                "x": box["x"] + 50,
                "y": box["y"] + 20,
                "data": {
                    "items": [],
                    "files": [str(tmp_path / name) for name in ("folder", "empty.txt", "fine.txt")],
                    "dragOperationsMask": 1,
                },
            },
        )
    await page.wait_for_selector("#attachments:has-text('fine.txt')")
    problems = (await page.inner_text("#notice")).split("\n")
    assert problems[0].startswith("folder cannot be read. Add files rather than folders")
    assert problems[1:] == ["empty.txt is empty."]


async def test_a_printed_pdf_is_read(open_page: Open, fake: FakeOllama) -> None:
    """What a browser prints has compressed text in embedded parts of fonts."""
    page = await open_page(locale="ko-KR")
    fake.reply(tokens(["파리의 **인구**는 2,102,650명입니다."]))
    await say(page, "파리의 인구는?")
    await answered(page)
    await _add(page, "인쇄.pdf", await page.pdf(), "application/pdf")
    await page.wait_for_selector("#attachments .file:has-text('인쇄.pdf')")
    await say(page, "요약해 줘")
    await answered(page, 2)
    assert "파리의 인구는 2,102,650명입니다." in prompt_of(fake, 1)
