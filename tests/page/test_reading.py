"""Reading and copying: mathematics, code in questions, rich text."""

from typing import Any

import pytest

from tests.fake_ollama import FakeOllama, Lockstep, tokens
from tests.page.conftest import IN_BOTH, Open
from tests.page.conversation import answered, prompt_of, say, wait_for_count

FORMULAS = r"""Inline $x^2$, \(\alpha\), costs $5 or $10, and `$code$`.

$$
\int_0^1 \frac{1}{x}\,dx
$$

\[ A = \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} \]

Wrong: $\frac{1$.
"""

READ_CLIPBOARD = """async (type) => {
  const [item] = await navigator.clipboard.read();
  return (await item.getType(type)).text();
}"""

HOLD_BACK_CLIPBOARD = """
  Object.defineProperty(navigator, "clipboard", { value: undefined });
  addEventListener("copy", ({ clipboardData }) => {
    window.copied = ["text/plain", "text/html"].map((type) => clipboardData.getData(type));
  });
"""


async def _loaded(page: Any, name: str) -> int:
    names: list[str] = await page.evaluate(
        "performance.getEntriesByType('resource').map(({ name }) => name)"
    )
    return sum(name in url for url in names)


@IN_BOTH
async def test_mathematics_is_mathml(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    await say(page, "Without")
    await answered(page)
    assert await _loaded(page, "temml") == 0
    fake.reply(tokens(list(FORMULAS)))
    await say(page, "Formulas")
    answer = await answered(page, 2)
    await wait_for_count(page, ".answer math", 4)
    assert await _loaded(page, "temml.min.js") == 1
    assert await answer.locator("math[display=block]").count() == 2
    assert await answer.locator("msubsup, msup, mfrac, mtable").count() == 4
    text = await answer.inner_text()
    assert "costs $5 or $10" in text
    assert "$code$" in text
    assert "Wrong: $\\frac{1$." in text
    height = "document.querySelector('math mtable').getBoundingClientRect().height"
    assert await page.evaluate(height) > 30
    padding = "getComputedStyle(document.querySelector('mtd:last-child')).paddingLeft"
    assert float((await page.evaluate(padding)).removesuffix("px")) > 5


async def test_mathematics_is_legible_while_it_comes(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    lockstep = Lockstep(["$x^2$ ", "and $y$ " * 30])
    fake.reply(lockstep)
    await say(page, "Formulas")
    await page.wait_for_selector(".progress")
    await page.wait_for_selector(".answer math")
    assert await page.locator(".progress").count() == 1
    lockstep.next()
    lockstep.next()
    await answered(page)
    await wait_for_count(page, ".answer math", 31)


async def test_mathematics_that_cannot_be_loaded_stays_tex(
    open_page: Open, fake: FakeOllama
) -> None:
    page = await open_page()
    await page.route("**/vendor/temml/*", lambda route: route.abort())
    fake.reply(tokens(["See $x^2$."]))
    await say(page, "Formula")
    answer = await answered(page)
    assert "See $x^2$." in await answer.inner_text()


async def test_code_in_questions_is_formatted(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    question = "Why `x`?\n\n```python\ndef hello():\n    pass\n```\n* as *typed* <b>\n~~~\nopen"
    await page.fill("#message", question)
    await page.keyboard.press("Enter")
    await answered(page)
    text = page.locator(".user .text")
    await page.wait_for_selector(".user .code .hljs-keyword")
    assert await text.locator("figure.code").count() == 2
    assert await text.locator(":scope > code").all_inner_texts() == ["x"]
    assert "* as *typed* <b>" in await text.inner_text()
    assert prompt_of(fake, 0) == question
    await text.get_by_role("button", name="Copy code").first.click()
    await page.wait_for_selector(".code button:has-text('Copied')")
    await page.wait_for_function(
        "async () => await navigator.clipboard.readText() === 'def hello():\\n    pass\\n'"
    )


RICH = """**Bold** with `code`

| a | b |
|---|--:|
| 1 | 2 |

| اسم | عدد |
|---|---|
| تفاح | 3 |

```python
x = 1
```

$x^2$"""


@pytest.mark.parametrize("how", ["button", "key"])
async def test_copy_gives_rich_text(how: str, open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    fake.reply(tokens([RICH]))
    await say(page, "Much")
    await answered(page)
    await page.wait_for_selector(".hljs-number")
    await page.wait_for_selector(".answer math")
    if how == "button":
        await page.click(".assistant [aria-label=Copy]")
        await page.wait_for_selector(".assistant .tools :text('Copied')")
    else:
        await page.keyboard.press("Alt+c")
        await page.wait_for_selector("#spoken:has-text('Copied')")
    assert await page.evaluate(READ_CLIPBOARD, "text/plain") == RICH
    html = await page.evaluate(READ_CLIPBOARD, "text/html")
    for part in ("<strong", 'border="1"', "<pre", "Consolas", "<math"):
        assert part in html, html
    assert html.count("<table") == 2
    assert html.count('<table dir="rtl"') == 1
    for part in ("button", "Copy code", "hljs", "figure"):
        assert part not in html, html


async def test_copy_gives_rich_text_over_plain_http(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    await page.add_init_script(HOLD_BACK_CLIPBOARD)
    await page.reload()
    fake.reply(tokens([RICH]))
    await say(page, "Much")
    await answered(page)
    await page.click(".assistant [aria-label=Copy]")
    await page.wait_for_selector(".assistant .tools :text('Copied')")
    text, html = await page.evaluate("window.copied")
    assert text == RICH
    assert 'border="1"' in html


async def test_all_of_a_conversation_is_printed_and_nothing_else(
    open_page: Open, fake: FakeOllama
) -> None:
    page = await open_page()
    fake.reply(tokens(["word\n\n" * 200]))
    await say(page, "Hello")
    await answered(page)
    await page.emulate_media(media="print")
    for selector in ("#sidebar", "#composer", ".assistant .tools"):
        assert not await page.is_visible(selector)
    height = await page.evaluate("document.querySelector('.answer').scrollHeight")
    assert await page.evaluate("document.documentElement.scrollHeight") >= height


OUT_OF_SIGHT = """() => [...document.querySelectorAll("pre, .table")].filter(
  ({ scrollWidth, clientWidth, scrollHeight, clientHeight }) =>
    scrollWidth > clientWidth || scrollHeight > clientHeight
).length"""


async def test_nothing_is_cut_off_or_pale_on_paper(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page(viewport={"width": 700, "height": 800}, color_scheme="dark")
    row = (
        f"|{'2026-11-28 | `call_it(1)` | a remark that is not at all short, but very long |' * 3}\n"
    )
    address = f"https://example.org/{'path' * 60}"
    wide = f"{row}|{'---|' * 9}\n{row}\n|Parameters|Address|\n|---|---|\n|70B|{address}|\n"
    fake.reply(tokens([f"```python\ncall({'argument, ' * 30})\n```\n\n{wide}"]))
    await say(page, "Hello")
    await answered(page)
    assert await page.evaluate(OUT_OF_SIGHT) == 3
    await page.click("#open-settings")
    await page.select_option("#theme", "dark")
    await page.keyboard.press("Escape")
    await page.emulate_media(media="print")
    assert await page.evaluate(OUT_OF_SIGHT) == 0
    heading = page.locator("th:text('Parameters')")
    assert (await heading.bounding_box())["height"] < 50, "no word is cut that fits"
    ink = "getComputedStyle(document.querySelector('.answer')).color"
    assert await page.evaluate(ink) == "rgb(34, 36, 31)"


ARABIC = """مرحبا! كلمة Python في الوسط.

- البند `x = 1`!

| الاسم | القيمة |
|---|---|
| واحد | 1 |

English, and a formula: $x$.
"""

LEFT = """(selector) => {
  const range = document.createRange();
  range.selectNodeContents(document.querySelector(selector));
  const { left } = document.querySelector(".answer").getBoundingClientRect();
  return Math.round(range.getClientRects()[0].left - left);
}"""


@IN_BOTH
async def test_text_from_right_to_left(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    fake.reply(tokens([ARABIC]))
    await say(page, "ما هي عاصمة فرنسا (France)?")
    await answered(page)
    assert await page.evaluate(LEFT, ".answer > p") > 300
    assert await page.evaluate(LEFT, ".answer > p:last-child") == 0
    for selector in (".answer li", ".answer th", ".user > .text"):
        styles = f"getComputedStyle(document.querySelector('{selector}')).unicodeBidi"
        assert await page.evaluate(styles) == "plaintext"
    name, value = await page.locator("th").all()
    assert (await name.bounding_box())["x"] > (await value.bounding_box())["x"]
    assert await page.evaluate(LEFT, ".answer th") > 300, "the table stands on the right, too"
    assert await page.locator(".answer ul").evaluate("list => list.matches(':dir(rtl)')")


@IN_BOTH
async def test_a_list_and_a_quotation_stand_on_the_side_of_their_text(
    open_page: Open, fake: FakeOllama
) -> None:
    page = await open_page()
    fake.reply(tokens(["- `ls` يعرض الملفات\n\n> - مرحبا بكم\n\ntext\n\n> - Hello\n"]))
    await say(page, "Hello")
    await answered(page)
    direction = "(block) => getComputedStyle(block).direction"
    assert await page.locator(".answer > ul").evaluate(direction) == "rtl"
    quotations = await page.locator(".answer > blockquote").all()
    assert [await each.evaluate(direction) for each in quotations] == ["rtl", "ltr"]
