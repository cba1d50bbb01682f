"""Hostile output stays inert, whole or in pieces, at first and after a reload."""

import json
from typing import Any

from tests.fake_ollama import FakeOllama, error, tokens
from tests.page.attacks import ATTACKS
from tests.page.conftest import Open
from tests.page.conversation import answered, say

INSPECT = """() => {
  const tags = new Set(("a blockquote br button code del div em figcaption figure h1 h2 h3 h4 h5 "
    + "h6 hr li ol p pre span strong svg table tbody td th thead tr ul use").split(" "));
  const attributes = new Set(["align", "aria-hidden", "class", "dir", "href", "rel", "start",
    "tabindex", "target", "type"]);
  const mathTags = new Set(("math menclose mfrac mi mmultiscripts mn mo mover mpadded mphantom "
    + "mprescripts mroot mrow mspace msqrt mstyle msub msubsup msup mtable mtd mtext mtr munder "
    + "munderover none").split(" "));
  const mathAttributes = new Set(("accent accentunder class columnalign depth display displaystyle "
    + "fence form height largeop linethickness lspace mathbackground mathcolor mathsize "
    + "mathvariant maxsize minsize movablelimits notation rowspacing rspace scriptlevel separator "
    + "stretchy style symmetric voffset width").split(" "));
  const wrong = [];
  for (const element of document.querySelectorAll(".answer math, .answer math *")) {
    const fine = element.namespaceURI.endsWith("MathML") && mathTags.has(element.localName)
      && element.closest("p.math, span.math")
      && element.getAttributeNames().every((name) => mathAttributes.has(name))
      && !/url|position|expression|image/i.test(element.getAttribute("style"));
    if (!fine) wrong.push(element.outerHTML);
  }
  for (const element of document.querySelectorAll(".answer *:not(math, math *)")) {
    const { tagName, outerHTML } = element;
    if (!tags.has(tagName.toLowerCase())) wrong.push(outerHTML);
    for (const { name } of element.attributes) if (!attributes.has(name)) wrong.push(outerHTML);
    if (tagName !== "A") continue;
    const fine = ["http:", "https:", "mailto:"].includes(element.protocol)
      && element.target === "_blank" && element.rel === "noopener noreferrer"
      && element.origin !== location.origin;
    if (!fine) wrong.push(outerHTML);
  }
  return wrong;
}"""

DRAW_IN_PIECES = """async (attacks) => {
  const base = document.querySelector("script[src$='main.js']").src;
  const { Answer } = await import(new URL("answer.js", base));
  const answers = attacks.map((text) => ({ text, answer: new Answer() }));
  document.querySelector("#messages").append(...answers.map(({ answer }) => answer.element));
  const longest = Math.max(...attacks.map((text) => text.length));
  for (let at = 0; at < longest; at += 2) {
    for (const { text, answer } of answers) answer.append(text.slice(at, at + 2));
    await new Promise(requestAnimationFrame);
  }
  for (const { answer } of answers) answer.finish();
}"""


def _is_own(url: str, page_url: str) -> bool:
    """Return whether the page itself requests it: its own address, its files and its API."""
    return url.partition("#")[0] == page_url or url.startswith(
        (f"{page_url}static/", f"{page_url}api/", "data:image/jpeg;base64,QUJD")
    )


async def _watch(page: Any) -> list[str]:
    """Record what a successful attack would do."""
    happened: list[str] = []
    await page.expose_function("pwned", lambda: happened.append("a script ran"))
    page.on("dialog", lambda dialog: happened.append(f"dialog {dialog.message}"))
    page.on("popup", lambda popup: happened.append(f"window {popup.url}"))
    own = page.url
    for event in ("framenavigated", "request"):
        page.on(event, lambda to: None if _is_own(to.url, own) else happened.append(to.url))
    return happened


def test_there_are_enough_attacks() -> None:
    assert len(set(ATTACKS)) == len(ATTACKS) >= 60


async def test_each_attack_in_pieces(open_page: Open) -> None:
    page = await open_page()
    happened = await _watch(page)
    await page.evaluate(DRAW_IN_PIECES, list(ATTACKS))
    assert await page.evaluate(INSPECT) == []
    for link in await page.locator(".answer a").all():
        await link.hover()
    await page.wait_for_timeout(200)
    assert happened == []


async def test_all_attacks_in_an_answer_and_after_a_reload(
    open_page: Open, fake: FakeOllama
) -> None:
    page = await open_page()
    happened = await _watch(page)
    text = "\n\n".join(ATTACKS)
    fake.reply(tokens([text[at : at + 7] for at in range(0, len(text), 7)]))
    await say(page, "<img src=x onerror=pwned()>")
    answer = await answered(page)
    assert await page.evaluate(INSPECT) == []
    assert await answer.locator("p").count() > 50
    assert happened == []
    await page.reload()
    await page.wait_for_selector(".answer p")
    assert await page.evaluate(INSPECT) == []
    assert happened == []
    assert await page.locator(".open").inner_text() == "<img src=x onerror=pwned()>"


async def test_depth_is_no_weapon(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    groups, fractions = "{" * 400 + "x" + "}" * 400, r"\frac{1}{" * 150 + "x" + "}" * 150
    markdown = [">" * 20_000, " deep", f"${groups}$", f"$${fractions}$$", "[" * 20_000]
    markdown.append("*a " * 5_000 + "end")
    fake.reply(tokens([f"{part}\n\n" for part in markdown]))
    await say(page, "Go deep")
    answer = await answered(page)
    assert (await answer.inner_text()).rstrip().count("end") == 1


async def test_errors_names_and_imports_are_no_way_in(open_page: Open, fake: FakeOllama) -> None:
    fake.models.append("<b>")
    page = await open_page()
    happened = await _watch(page)
    fake.reply(error(400, "<img src=x onerror=pwned()>"))
    await say(page, "Hello")
    await page.wait_for_selector(".notice:has-text('<img')")
    hostile = "<img src=x onerror=pwned()>"
    conversation = {
        "id": "x",
        "title": hostile,
        "messages": [
            {"role": "user", "text": hostile, "images": ["x' onerror='pwned()", "QUJD"]},
            {"role": "assistant", "text": hostile, "model": hostile, "context": [hostile]},
        ],
    }
    await page.set_input_files(
        "#import-file",
        {
            "name": "x.json",
            "mimeType": "application/json",
            "buffer": json.dumps({"conversations": [conversation]}).encode(),
        },
    )
    await page.click(f".open:text('{hostile}')")
    await page.wait_for_selector(".figures:has-text('<img')")
    assert await page.locator(".message img").count() == 1
    assert await page.evaluate(INSPECT) == []
    assert happened == []
