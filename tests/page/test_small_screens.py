"""On phones, with touch, zoomed in; and Back and Forward everywhere."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fake_ollama import FakeOllama, tokens
from tests.page.conftest import IN_BOTH, Open
from tests.page.conversation import answered, say, wait_for_count, wait_until

PHONE = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True}

TABLE = """| Day | Amount | Remarks on it | Code | By |
|---|--:|---|---|---|
| 2026-11-27 | 1 234 567,89 € | Something long that is said about this day | `do-it-now` | Su-jin |
| 2026-11-28 | -12.5 kg | 국제화된 데이터베이스관리시스템 | `x` | Kim Min-su |
"""

SMALL_TARGETS = """() => {
  const small = [];
  const targets = "button, select, summary, input, a, label.check";
  for (const element of document.querySelectorAll(targets)) {
    const { width, height } = element.getBoundingClientRect();
    const seen = element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
    if (!seen || element.closest(".unseen, .skip, label.check input, .answer a")) continue;
    if (element.type === "range" || element.closest("label.check") !== null
      && element.tagName === "INPUT") continue;
    if (width < 44 || height < 44) small.push(`${width}x${height} ${element.outerHTML}`);
  }
  return small;
}"""


async def _path(page: Any) -> str:
    return str(await page.evaluate("location.pathname + location.hash"))


async def _focused(page: Any) -> str:
    return str(await page.evaluate("document.activeElement.id"))


async def _titles(page: Any, *titles: str) -> None:
    """Create a conversation with each title, in this order."""
    for title in titles:
        await page.click("#new")
        await say(page, title)
        await answered(page)


async def _shown(page: Any, text: str) -> None:
    await page.wait_for_selector(f".user .text:text-is('{text}')")
    await wait_for_count(page, ".user", 1)


@IN_BOTH
async def test_back_walks_through_conversations(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    await _titles(page, "One", "Two", "Three")
    await page.click(".open:text('One')")
    await _shown(page, "One")
    await page.go_back()
    await _shown(page, "Three")
    await page.go_back()
    await _shown(page, "Two")
    await page.go_forward()
    await _shown(page, "Three")
    one = (await page.get_attribute(".open:text('One')", "data-id")) or ""
    await page.evaluate("(id) => { location.hash = id; }", one)
    await _shown(page, "One")
    await page.go_back()
    await _shown(page, "Three")


@pytest.mark.parametrize("address", ["/#gone", "/#100%"])
async def test_address_of_no_conversation(address: str, open_page: Open, fake: FakeOllama) -> None:
    page = await open_page(address)
    await page.wait_for_selector("#notice:has-text('not in this browser')")
    assert await _path(page) == "/"
    await say(page, "Hello")
    await answered(page)
    assert await page.inner_text("#notice") == ""
    await page.keyboard.press("Escape")
    await page.focus(".skip")
    await page.keyboard.press("Enter")
    assert await _focused(page) == "message"
    assert len(await _path(page)) > 10
    await wait_for_count(page, ".user", 1)


async def test_any_name_of_a_conversation_is_an_address(
    open_page: Open, fake: FakeOllama, tmp_path: Path
) -> None:
    page = await open_page()
    told = {"id": "a", "parent": None, "role": "user", "text": "Hello"}
    talks = [{"id": "50% off %41", "title": "Sale", "messages": [told], "leaf": "a"}]
    (tmp_path / "talks.json").write_text(json.dumps({"conversations": talks}))
    await page.set_input_files("#import-file", tmp_path / "talks.json")
    await page.click(".open:text('Sale')")
    await page.wait_for_selector(".user:has-text('Hello')")
    await page.reload()
    await page.wait_for_selector(".user:has-text('Hello')")
    await page.click("#new")
    await wait_for_count(page, ".user", 0)
    await page.go_back()
    await page.wait_for_selector(".user:has-text('Hello')")


@pytest.mark.parametrize("by", ["back", "escape"])
@pytest.mark.parametrize(
    ("button", "dialog"), [("#open-settings", "#settings"), ("#open-stats", "#stats")]
)
async def test_back_closes_dialogs(
    button: str, dialog: str, by: str, open_page: Open, fake: FakeOllama
) -> None:
    page = await open_page()
    await _titles(page, "One", "Two")
    await page.click(button)
    await page.wait_for_selector(f"{dialog}[open]")
    if by == "back":
        await page.go_back()
    else:
        await page.keyboard.press("Escape")
    await page.wait_for_selector(dialog, state="hidden")
    await _shown(page, "Two")

    async def entry_is_gone() -> bool:
        return await page.evaluate("history.state") is None

    await wait_until(entry_is_gone)
    await page.go_back()
    await _shown(page, "One")


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
async def test_drawer_has_the_focus_while_it_is_open(
    motion: str, open_page: Open, fake: FakeOllama
) -> None:
    page = await open_page(**PHONE, reduced_motion=motion)
    await page.fill("#message", "One")
    await page.tap("#send")
    await answered(page)
    await page.tap("#open-sidebar")
    assert await _focused(page) == "close-sidebar"
    for _ in range(12):
        await page.keyboard.press("Tab")
        outside = "document.activeElement.matches('#conversation *, dialog *')"
        assert not await page.evaluate(outside), await _focused(page)
    await page.go_back()
    await page.wait_for_selector("#sidebar", state="hidden")
    await page.tap("#open-sidebar")
    await page.touchscreen.tap(355, 300)
    await page.wait_for_selector("#sidebar", state="hidden")
    await _shown(page, "One")
    await page.tap("#open-sidebar")
    await page.tap("#new")
    await page.wait_for_selector("#sidebar", state="hidden")
    await page.go_back()
    await _shown(page, "One")
    assert not await page.is_visible("#sidebar")


async def test_enter_is_a_new_line_on_touch(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page(**PHONE)
    await page.tap("#message")
    await page.keyboard.type("One")
    await page.keyboard.press("Enter")
    await page.keyboard.type("Two")
    assert await page.get_attribute("#message", "enterkeyhint") == "enter"
    assert await page.input_value("#message") == "One\nTwo"
    await page.tap("#send")
    await answered(page)
    await page.tap(".user [aria-label=Edit]")
    await page.keyboard.press("Enter")
    assert await page.input_value(".edit textarea") == "One\nTwo\n"
    await page.keyboard.press("Control+Enter")
    await fake.wait_for(2)


async def test_cells_scroll_and_never_break_words(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page(**PHONE)
    fake.reply(tokens([TABLE]))
    await page.fill("#message", "Table")
    await page.tap("#send")
    await answered(page)
    lines = """(selector) => [...document.querySelectorAll(selector)].map((cell) => {
      const range = document.createRange();
      range.selectNodeContents(cell);
      return new Set([...range.getClientRects()].map(({ bottom }) => Math.round(bottom / 8))).size;
    })"""
    whole = "td:first-child, td:nth-child(2), td code, td:last-child"
    assert await page.evaluate(lines, whole) == [1] * 8
    assert await page.evaluate(lines, "tr:last-child td:nth-child(3)") == [2]
    assert max(await page.evaluate(lines, "td.long")) <= 5
    assert await page.evaluate("document.documentElement.scrollWidth") == 360
    assert await page.evaluate("document.querySelector('.table').scrollWidth") > 360


async def test_targets_are_large_enough_for_fingers(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page(**PHONE)
    fake.capabilities = ["completion", "vision", "thinking"]
    await page.reload()
    fake.reply(tokens(["```python\nx = 1\n```"], thinking=["Hm."]))
    buffer = {"name": f"{'long-' * 20}.txt", "mimeType": "text/plain", "buffer": b"x"}
    assert await page.evaluate(SMALL_TARGETS) == []
    await page.set_input_files("#attach-file", buffer)
    await page.wait_for_selector("#attachments .file button")
    assert await page.evaluate(SMALL_TARGETS) == []
    name = await page.locator("#attachments .name").bounding_box()
    assert name["width"] > 100
    await page.fill("#message", "Go")
    await page.tap("#send")
    await answered(page)
    for part in ("details.file", ".text"):
        box = await page.locator(f".user {part}").bounding_box()
        assert box["x"] + box["width"] <= 360
    assert await page.evaluate(SMALL_TARGETS) == []
    await page.tap("#open-sidebar")
    assert await page.evaluate(SMALL_TARGETS) == []
    await page.tap("#list .more")
    assert await page.get_attribute("#list .more", "aria-expanded") == "true"
    await page.wait_for_selector("#list [aria-label='Delete: Go']")
    assert await page.evaluate(SMALL_TARGETS) == []
    await page.tap("#close-sidebar")
    for button in ("#open-settings", "#change-key"):
        await page.tap(button)
        assert await page.evaluate(SMALL_TARGETS) == []


async def test_the_list_has_room_for_titles(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page(**PHONE)
    title = "A title of a usual length"
    await page.fill("#message", title)
    await page.tap("#send")
    await answered(page)
    await page.tap("#open-sidebar")
    assert await page.locator("#list .actions").is_hidden()
    clipped = "(title) => title.scrollWidth > title.clientWidth"
    assert not await page.locator("#list .open").evaluate(clipped)
    await page.tap("#list .more")
    assert not await page.locator("#list .open").evaluate(clipped)
    await page.tap(f"[aria-label='Pin: {title}']")
    await page.wait_for_selector("#list .day:has-text('Pinned')")


async def test_chart_keeps_its_letters(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page(**PHONE)
    await page.fill("#message", "Go")
    await page.tap("#send")
    await answered(page)
    await page.tap("#open-sidebar")
    await page.tap("#open-stats")
    await page.wait_for_selector("#stats svg .name")
    box = await page.locator("#stats svg .name").bounding_box()
    assert box["height"] >= 13
    assert await page.evaluate("document.querySelector('#stats').scrollWidth") <= 340
    row = await page.locator("#stats tbody tr").bounding_box()
    assert row["height"] < 50  # no number is broken
    await page.set_viewport_size({"width": 640, "height": 360})

    async def is_wider() -> bool:
        width = await page.evaluate(
            "document.querySelector('#stats figure svg').viewBox.baseVal.width"
        )
        return bool(width > 500)

    await wait_until(is_wider)


async def test_two_hundred_percent(open_page: Open, fake: FakeOllama) -> None:
    """A window of 1280 by 720 pixels at 200 %: everything is present and readable."""
    page = await open_page(viewport={"width": 640, "height": 360}, device_scale_factor=2)
    fake.reply(tokens(["line\n\n" * 30]))
    await say(page, "One")
    await answered(page)
    assert await page.evaluate("document.documentElement.scrollWidth") == 640
    assert await page.evaluate("document.querySelector('#scroller').clientHeight") > 180
    for selector in ("#send", "#model", "#open-settings", "#open-sidebar"):
        box = await page.locator(selector).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 640
        assert box["y"] + box["height"] <= 360


async def test_versions_and_figures_are_whole(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page(**PHONE, locale="ko-KR")
    await page.fill("#message", "시")
    await page.tap("#send")
    await answered(page)
    await page.tap(".assistant [aria-label='다시 생성']")
    versions = page.locator(".assistant .versions")
    await versions.wait_for()
    box = await versions.bounding_box()
    assert box["height"] < 50
    figures = await page.locator(".assistant .figures").bounding_box()
    assert figures["x"] + figures["width"] <= 360
    assert figures["height"] < 50


async def test_long_names_of_models_hide_no_figures(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page(**PHONE)
    name = "hf.co/bartowski/Qwen2.5-72B-Instruct-GGUF:Q4_K_M"
    figures = {"count": 3, "p50_s": 39, "p95_s": 60, "first_token_mean_s": 6.4, "tokens_per_s": 7.2}
    models = [
        {"model": name, "mean_s": 41, **figures},
        {"model": "new:1b", **dict.fromkeys(["mean_s", *figures]), "count": 1},
    ]
    await page.route(
        "**/api/stats",
        lambda route: route.fulfill(json={"models": models, "queue": {"running": 0, "waiting": 0}}),
    )
    await page.tap("#open-sidebar")
    await page.tap("#open-stats")
    await page.wait_for_selector("#stats tbody tr")
    chart = await page.locator("#stats figure svg").bounding_box()
    label = await page.locator("#stats svg .name >> nth=0").bounding_box()
    assert label["width"] <= chart["width"]
    assert (await page.locator("#stats .name >> nth=0").text_content()).endswith("GGUF:Q4_K_M")
    cells = page.locator("#stats tbody tr >> nth=0 >> td")
    assert await cells.first.inner_text() == name
    mean = await cells.nth(2).bounding_box()
    assert mean["x"] + mean["width"] <= 360
    assert await page.locator("#stats .value").all_text_contents() == ["41 s", "\N{EN DASH}"]


async def test_a_wide_table_shows_where_it_goes_on(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page(**PHONE)
    fake.reply(tokens([TABLE]))
    await page.fill("#message", "Table")
    await page.click("#send")
    await answered(page)

    async def edge(side: str) -> bytes:
        box = await page.locator(".answer .table").bounding_box()
        x = box["x"] + (box["width"] - 2 if side == "right" else 0)
        image: bytes = await page.screenshot(
            clip={"x": x, "y": box["y"] + 2, "width": 2, "height": 4}
        )
        return image

    assert await edge("right") != await edge("left")
    before = await edge("right")
    await page.locator(".answer .table").evaluate("(table) => (table.scrollLeft = 1e6)")
    assert await edge("left") != await edge("right") != before


async def test_arrows_of_the_settings_keep_away_from_the_border(open_page: Open) -> None:
    page = await open_page(**PHONE)
    await page.click("#open-settings")
    box = await page.locator("#language").bounding_box()
    shot = {"y": box["y"] + 4, "height": box["height"] - 8}
    border = {**shot, "x": box["x"] + box["width"] - 12, "width": 8}
    empty = {**shot, "x": box["x"] + box["width"] - 40, "width": 8}
    assert await page.screenshot(clip=border) == await page.screenshot(clip=empty)
