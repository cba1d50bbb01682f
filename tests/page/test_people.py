"""For everyone: Korean, keyboards, screen readers, small screens, dark mode."""

from typing import Any

import pytest

from tests.fake_ollama import (
    FakeOllama,
    Lockstep,
    error,
    never_answers,
    stalls_after,
    tokens,
)
from tests.page.conftest import Open
from tests.page.conversation import answered, prompt_of, say, stall, wait_for_count

MARKDOWN = """# 제목

Some `code`, a [link](https://example.com/) and a list:

- one
- two

| a | b |
|---|---|
| 1 | 2 |

```python
print("안녕")  # a comment
```

> A quotation, and $x^2$.
"""


async def test_korean_browser_sees_korean(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page(locale="ko-KR")
    assert await page.get_attribute("html", "lang") == "ko"
    assert await page.inner_text("h2") == "무엇을 도와드릴까요?"
    assert await page.get_attribute("#message", "placeholder") == "메시지"
    assert await page.inner_text("#status") == "연결됨"
    await page.click("#open-settings")
    await page.select_option("#language", "en")
    assert await page.inner_text("#settings-title") == "Settings"
    await page.reload()
    assert await page.inner_text("h2") == "What can I help with?"


async def test_both_languages_have_the_same_words(open_page: Open) -> None:
    page = await open_page()
    missing = await page.evaluate(
        """async () => {
          const url = new URL("words.js", document.querySelector("script[src$='main.js']").src);
          const module = await import(url);
          const shape = (value) => typeof value === "object"
            ? Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, shape(inner)]))
            : typeof value === "function" ? value.length : typeof value;
          module.speak("ko");
          const korean = JSON.stringify(shape(module.words));
          module.speak("en");
          return korean === JSON.stringify(shape(module.words)) ? [] : [korean];
        }"""
    )
    assert missing == []


async def test_enter_in_a_composition_does_not_send(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    devtools = await page.context.new_cdp_session(page)
    await page.focus("#message")
    for text in ("ㅎ", "하", "한"):
        await devtools.send(
            "Input.imeSetComposition", {"text": text, "selectionStart": 1, "selectionEnd": 1}
        )
    for code in (13, 229):  # the IME's own Enter, as browsers tell of it
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": code}
        await devtools.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **key})
    await devtools.send("Input.insertText", {"text": "한"})
    assert fake.asked() == []
    assert await page.input_value("#message") == "한"
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("!")
    assert fake.asked() == []
    await page.keyboard.press("Enter")
    await answered(page)
    assert prompt_of(fake, 0) == "한\n!"


async def test_keyboard_alone_suffices(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    await say(page, "Hello")
    await answered(page)
    await page.keyboard.press("Alt+c")
    await page.wait_for_function(
        "async () => await navigator.clipboard.readText() === 'The capital of France is Paris.'"
    )
    await page.keyboard.press("Alt+r")
    await fake.wait_for(2)
    await answered(page)
    await page.keyboard.press("ArrowUp")
    await page.keyboard.type(" again")
    await page.keyboard.press("Enter")
    await fake.wait_for(3)
    assert prompt_of(fake, -1) == "Hello again"
    await answered(page)
    await page.keyboard.press("Alt+n")
    await wait_for_count(page, ".message", 0)
    await page.keyboard.press("Alt+f")
    await page.wait_for_selector("#search:focus")
    await page.keyboard.press("Alt+s")
    await page.wait_for_selector("#settings[open]")
    await page.keyboard.press("Escape")
    await page.focus("#new")
    await page.keyboard.press("?")
    await page.wait_for_selector("#shortcuts[open]")
    assert await page.locator("#shortcuts dt").count() == 11
    await page.keyboard.press("Escape")
    await page.focus("#new")
    await page.keyboard.press("/")
    await page.wait_for_selector("#message:focus")
    await page.keyboard.press("?")
    assert await page.input_value("#message") == "?"


async def test_screen_readers_hear_sentences(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    fake.reply(
        tokens(["**Pa", "ris** is", " it. It has", " 2.1 million", " people! 안녕하세요. And"])
    )
    await say(page, "Hello")
    await answered(page)
    assert await page.locator("#spoken p").all_inner_texts() == [
        "Paris is it.",
        "It has 2.1 million people!",
        "안녕하세요.",
        "And",
    ]


async def test_response_times(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    await page.click("#open-stats")
    await page.wait_for_selector("#stats:has-text('No model has answered')")
    await page.keyboard.press("Escape")
    await say(page, "Hello")
    await answered(page)
    await page.click("#open-stats")
    await page.wait_for_selector("#stats tbody tr")
    assert await page.inner_text("#stats tbody td >> nth=0") == "llama3.1:70b"
    assert await page.locator("#stats svg rect").count() == 2
    await page.keyboard.press("Escape")
    await page.route("**/api/stats", lambda route: route.fulfill(status=404, body="{}"))
    await page.click("#open-stats")
    await page.wait_for_selector("#stats:has-text('does not measure')")


async def test_phone(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    fake.reply(tokens(["Verylongword" * 30, f"\n\n{MARKDOWN}\n\n", f"`{'x' * 200}`"]))
    await page.fill("#message", "Hello")
    await page.tap("#send")
    await answered(page)
    assert await page.evaluate("document.documentElement.scrollWidth") == 360
    assert await page.evaluate("document.querySelector('#scroller').scrollWidth") <= 360
    assert not await page.is_visible("#new")
    await page.click("#open-sidebar")
    await page.click("#new")
    await wait_for_count(page, ".message", 0)
    assert not await page.is_visible("#new")


STILL = """() => new Promise((resolve) => {
  const scroller = document.querySelector("#scroller");
  let [top, frames] = [scroller.scrollTop, 0];
  const look = () => {
    frames = scroller.scrollTop === top ? frames + 1 : 0;
    top = scroller.scrollTop;
    if (frames < 30) requestAnimationFrame(look);
    else resolve();
  };
  look();
})"""
"""Waits until nothing has moved in 30 frames, which a busy machine draws more slowly."""


async def test_reader_is_not_dragged_to_the_end(open_page: Open, fake: FakeOllama) -> None:
    lockstep = Lockstep(["line\n\n" * 60, "more\n\n" * 60, "end"])
    page = await open_page()
    fake.reply(lockstep)
    await say(page, "Hello")
    await page.wait_for_selector(".answer:has-text('line')")
    await page.hover("#messages")
    await page.mouse.wheel(0, -1000)
    await page.wait_for_selector("#to-end:visible")

    async def top() -> int:
        return int(await page.evaluate("document.querySelector('#scroller').scrollTop"))

    await page.evaluate(STILL)  # the wheel's own motion
    before = await top()
    lockstep.next()
    await page.wait_for_selector(".answer:has-text('more')")
    await page.wait_for_timeout(300)
    assert await top() == before
    await page.click("#to-end")
    lockstep.next()
    await page.wait_for_selector(".answer:has-text('end')")
    lockstep.next()
    await answered(page)
    await page.wait_for_selector("#to-end", state="hidden")


async def _background(page: Any) -> str:
    return str(await page.evaluate("getComputedStyle(document.body).backgroundColor"))


async def test_dark_and_light(open_page: Open) -> None:
    page = await open_page(color_scheme="dark")
    dark = await _background(page)
    await page.click("#open-settings")
    await page.select_option("#theme", "light")
    light = await _background(page)
    assert dark != light
    await page.reload()
    assert await _background(page) == light


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_barriers(scheme: str, open_page: Open, fake: FakeOllama) -> None:
    """axe finds no fault in any of the page's states, including contrast."""
    axe = pytest.importorskip("axe_playwright_python.async_playwright").Axe()
    page = await open_page(color_scheme=scheme, locale="ko-KR", bypass_csp=True)

    async def check(state: str) -> None:
        found = (await axe.run(page)).response["violations"]
        assert [(rule["id"], rule["nodes"][0]["html"]) for rule in found] == [], state

    await check("empty")
    fake.reply(tokens(list(MARKDOWN)), error(500, "broken"))
    await say(page, "안녕하세요")
    await answered(page)
    await page.wait_for_selector(".hljs-comment")
    await check("answer")
    await say(page, "More")
    await answered(page, 2)
    await check("error")
    for button, dialog in (
        ("#open-settings", "#settings"),
        ("#open-stats", "#stats table"),
        ("#open-shortcuts", "#shortcuts"),
    ):
        await page.click(button)
        await page.wait_for_selector(dialog)
        await check(dialog)
        await page.keyboard.press("Escape")
    await page.set_viewport_size({"width": 360, "height": 640})
    await page.click("#open-sidebar")
    await check("phone")


async def test_the_server_speaks_korean_to_koreans(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page(locale="ko-KR", settings={"rate_limit": "off"})
    fake.reply(
        error(404, "model 'llama3.1:70b' not found"), error(500, "llama runner has terminated")
    )
    for count, words in enumerate(
        (
            "설치된 모델: smollm2:135m, llama3.1:70b. 설치 명령: ollama pull",
            "Ollama 연결 오류: llama runner has terminated",
        ),
        1,
    ):
        await say(page, "안녕하세요")
        answer = await answered(page, count)
        await answer.locator(f".said:has-text('{words}')").wait_for()


async def test_waiting_is_announced_to_screen_readers(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    fake.reply(never_answers)
    await say(page, "Hello")
    await page.wait_for_selector("#waiting:text('Waiting for llama3.1:70b')", state="attached")
    await page.wait_for_selector("#waiting:text('is loading')", state="attached")
    assert await page.get_attribute("#waiting", "role") == "status"
    await page.click("#stop")
    await answered(page)
    assert await page.text_content("#waiting") == ""


async def test_a_double_click_on_send_sends_and_does_not_stop(
    open_page: Open, fake: FakeOllama
) -> None:
    page = await open_page()
    fake.reply(stalls_after(3))
    await page.fill("#message", "Hello")
    # However late the second click is, it comes at the time of the first.
    await page.evaluate("() => { const now = performance.now(); performance.now = () => now; }")
    await page.dblclick("#send")
    await page.wait_for_selector(".answer:has-text('0 1 2')")
    assert await page.locator(".aside").count() == 0
    await page.evaluate("() => { delete performance.now; }")
    await page.wait_for_timeout(500)  # as long as a double-click may take
    await page.click("#stop")
    await page.wait_for_selector(".aside:has-text('Stopped.')")


async def test_escape_in_the_search_field_ends_the_search(
    open_page: Open, fake: FakeOllama
) -> None:
    page = await open_page()
    await stall(page, fake)
    await page.fill("#search", "nowhere")
    await page.wait_for_selector("#list:has-text('Nothing found')")
    await page.press("#search", "Escape")
    await wait_for_count(page, "#list .open", 1)
    assert await page.input_value("#search") == ""
    assert await page.is_visible("#stop")


async def test_forced_colours_show_the_focus(open_page: Open) -> None:
    page = await open_page(forced_colors="active")
    await page.focus("#message")
    style = "getComputedStyle(document.querySelector('#composer .card')).outlineStyle"
    assert await page.evaluate(style) == "solid"


async def test_the_model_picker_is_as_wide_as_its_name(open_page: Open, fake: FakeOllama) -> None:
    fake.models = ["a:1b", "a-model-with-a-very-long-name-indeed:70b"]
    page = await open_page()
    await wait_for_count(page, "#model option", 2)
    await page.select_option("#model", "a:1b")
    short = (await page.locator("#model").bounding_box())["width"]
    await page.select_option("#model", "a-model-with-a-very-long-name-indeed:70b")
    assert (await page.locator("#model").bounding_box())["width"] > 2 * short


async def test_ones_own_answer_is_no_queue(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    fake.reply(never_answers)
    await say(page, "Hello")
    async with page.expect_response("**/api/stats"):
        pass
    await page.wait_for_selector(".progress:text('is loading')")
    assert not await page.is_visible("#queue")
