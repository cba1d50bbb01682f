"""The drawer: saved prompts and all of the API's options; and the starter cards."""

from typing import Any

import msgspec
import pytest

from core.contract.schemas import MAX_CONTEXT_LENGTH, Options
from tests.fake_ollama import FakeOllama, tokens
from tests.page.conftest import IN_BOTH, Open
from tests.page.conversation import answered, prompt_of, say, stored, system_of, wait_for_count


async def _save_prompt(page: Any, name: str, text: str) -> None:
    await page.click("#open-settings")
    await page.fill("#system", text)
    await page.fill("#prompt-name", name)
    await page.press("#prompt-name", "Enter")
    await page.wait_for_selector(f"#prompt-result:has-text('“{name}” is saved')")


@IN_BOTH
async def test_prompts_are_kept_under_a_name(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    await _save_prompt(page, "Pirate", "You are a pirate.")
    await page.fill("#system", "당신은 친절한 선생님입니다.")
    await page.fill("#prompt-name", "선생님")
    await page.click("#prompt-save")
    await page.check("#prompt-usual")
    await page.keyboard.press("Escape")
    await page.reload()
    assert "선생님" in await page.inner_text("#welcome-prompt")
    await say(page, "Hello")
    await answered(page)
    assert system_of(fake, 0) == "당신은 친절한 선생님입니다."

    await page.click("#open-settings")
    options = await page.locator("#prompt option").all_inner_texts()
    assert options == ["None", "Pirate", "선생님 (for new chats)"]
    await page.select_option("#prompt", "Pirate")
    assert await page.input_value("#system") == "You are a pirate."
    assert not await page.is_checked("#prompt-usual")
    await page.fill("#system", "You are an old pirate.")
    await page.click("#prompt-save")
    await page.keyboard.press("Escape")
    await say(page, "Again")
    await answered(page, 2)
    assert system_of(fake, 1) == "You are an old pirate."
    assert (await stored(page))[0]["system"] == "You are an old pirate."

    await page.click("#open-settings")
    await page.select_option("#prompt", "선생님")
    await page.click("#prompt-delete")
    await page.wait_for_selector("#prompt-result:has-text('deleted')")
    assert await page.input_value("#system") == "당신은 친절한 선생님입니다."
    await page.keyboard.press("Escape")
    await page.click("#new")
    await say(page, "New")
    await answered(page)
    assert "system" not in fake.asked()[2].json


async def test_drawer_has_every_option_of_the_api(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    await page.click("#open-settings")
    await page.click("#options summary")
    names = await page.locator("#option-fields [name]").evaluate_all(
        "all => all.map((f) => f.name)"
    )
    assert {*names, "temperature"} == set(Options.__struct_fields__)
    labels = await page.locator("#option-fields [data-option]").all_inner_texts()
    assert all(labels)
    assert len(set(labels)) == len(names)

    length = await page.get_attribute("[name=num_predict]", "placeholder")
    assert length == "server limit"  # which replaces the model's
    given = {"num_predict": 100, "seed": -7, "top_k": 20, "top_p": 0.5, "min_p": 0.05}
    given |= {"typical_p": 0.9, "repeat_last_n": -1, "repeat_penalty": 1.25}
    given |= {"presence_penalty": -0.5, "frequency_penalty": 1.5}
    for name, value in given.items():
        await page.fill(f"[name={name}]", str(value))
    await page.fill("[name=stop]", "END\n끝\n")
    await page.keyboard.press("Escape")
    await say(page, "Hello")
    await answered(page)
    options = {**given, "repeat_last_n": MAX_CONTEXT_LENGTH, "stop": ["END", "끝"]}  # of -1
    assert fake.asked()[0].json["options"] == options
    await page.reload()
    await page.wait_for_selector(".answer p")
    await page.click("#open-settings")
    assert await page.input_value("[name=top_p]") == "0.5"
    assert await page.input_value("[name=stop]") == "END\n끝"
    await page.click("#options-reset")
    await page.keyboard.press("Escape")
    await say(page, "Again")
    await answered(page, 2)
    assert set(fake.asked()[1].json["options"]) == {"num_predict"}


async def test_bounds_are_those_of_the_api(open_page: Open, fake: FakeOllama) -> None:
    """The drawer accepts what the API accepts; beyond the bounds it sends nothing."""
    page = await open_page()
    await page.click("#open-settings")
    await page.click("#options summary")
    fields = await page.locator("#option-fields input").evaluate_all(
        "all => all.map(({ name, min, max }) => [name, min, max])"
    )
    for name, low, high in fields:
        for bound, beyond in ((low, -1), (high, 1)):
            if not bound or (name, bound) == ("num_predict", "1"):  # 0 is the API's "no limit"
                continue
            msgspec.convert({name: _number(bound)}, Options)
            with pytest.raises(msgspec.ValidationError):
                msgspec.convert({name: _number(bound) + beyond}, Options)
            await page.fill(f"[name={name}]", str(_number(bound) + beyond))
            assert await page.locator(f"[name={name}]:invalid").count() == 1, name
    await page.keyboard.press("Escape")
    await say(page, "Hello")
    await answered(page)
    assert set(fake.asked()[0].json["options"]) == {"num_predict"}


def _number(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() else number


async def test_form_of_the_answer(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    await page.click("#open-settings")
    await page.click("#options summary")
    await page.select_option("#format", "json")
    await page.keyboard.press("Escape")
    await say(page, "Hello")
    await answered(page)
    await page.click("#open-settings")
    await page.select_option("#format", "schema")
    await page.fill("#schema", '{"type": "obj')
    assert await page.locator("#schema:invalid").count() == 1
    await page.fill("#schema", '{"type": "object"}')
    await page.keyboard.press("Escape")
    await say(page, "Again")
    await answered(page, 2)
    assert [asked.json["format"] for asked in fake.asked()] == ["json", {"type": "object"}]


@pytest.mark.parametrize(
    ("capabilities", "offered"),
    [(["completion"], False), (["completion", "thinking"], True), (None, True)],
)
async def test_thinking_is_offered_where_the_model_can(
    capabilities: list[str] | None, offered: bool, open_page: Open, fake: FakeOllama
) -> None:
    fake.capabilities = ["completion", "thinking"]
    page = await open_page()
    await page.click("#open-settings")
    await page.check("#think")
    await page.select_option("#think-level", "high")
    await page.keyboard.press("Escape")
    fake.reply(tokens(thinking=["Hm."]))
    await say(page, "Hello")
    await answered(page)
    assert fake.asked()[0].json["think"] == "high"

    answer = {"models": ["llama3.1:70b"], "count": 1}
    told = {} if capabilities is None else {"llama3.1:70b": capabilities}
    await page.route(
        "**/api/models*", lambda route: route.fulfill(json={**answer, "capabilities": told})
    )
    await page.reload()
    await wait_for_count(page, "#model option", 1)
    await page.click("#open-settings")
    assert await page.is_visible("#think") is offered
    await page.keyboard.press("Escape")
    await say(page, "Again")
    await answered(page, 2)
    assert fake.asked()[1].json["think"] == ("high" if offered else False)


async def test_embedding_models_are_left_out(open_page: Open) -> None:
    page = await open_page()
    await page.route(
        "**/api/models*",
        lambda route: route.fulfill(
            json={
                "models": ["nomic-embed-text", "qwen3:8b", "unknown"],
                "capabilities": {"nomic-embed-text": ["embedding"], "qwen3:8b": ["completion"]},
            }
        ),
    )
    await page.reload()
    await wait_for_count(page, "#model option", 2)
    assert await page.locator("#model option").all_inner_texts() == ["qwen3:8b", "unknown"]


async def test_cards_begin_a_message(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    await page.click("#starters button:has-text('Explain code')")
    assert (await page.input_value("#message")).startswith("Explain what this code does")
    assert await page.evaluate("document.activeElement.id") == "message"
    assert fake.asked() == []
    async with page.expect_file_chooser():
        await page.click("#starters button:has-text('Read a document')")
    await page.click("#open-settings")
    await page.select_option("#language", "ko")
    await page.keyboard.press("Escape")
    await page.click("#starters button:has-text('번역')")
    await page.keyboard.type("안녕하세요")
    await page.keyboard.press("Enter")
    await answered(page)
    assert prompt_of(fake, 0) == "자연스러운 영어로 번역해 줘:\n\n안녕하세요"
    assert not await page.is_visible("#starters")


async def test_cards_keep_what_was_typed(open_page: Open) -> None:
    page = await open_page()
    await page.fill("#message", "print(1)")
    await page.click("#starters button:has-text('Explain code')")
    field = await page.input_value("#message")
    assert field.endswith("\n\n```\nprint(1)\n```\n")
    await page.keyboard.type("  # here")
    assert "print(1)  # here\n```" in await page.input_value("#message")
    await page.fill("#message", "")
    await page.click("#starters button:has-text('Explain code')")
    await page.click("#starters button:has-text('Translate')")  # another card, nothing typed
    assert await page.input_value("#message") == "Translate into natural Korean:\n\n"


async def test_a_wrong_value_is_explained_and_keeps_nobody_in_the_drawer(open_page: Open) -> None:
    page = await open_page()
    await page.click("#open-settings")
    await page.click("#options summary")
    reported = "() => { window.reported = 0; addEventListener('invalid', () => reported++, true); }"
    await page.evaluate(reported)
    await page.fill("[name=top_p]", "3")
    await page.press("[name=top_p]", "Tab")
    assert await page.evaluate("reported") == 1  # the browser says why
    await page.click("#options summary")  # hides the field
    await page.click("#settings [aria-label=Close]")
    await page.wait_for_selector("#settings", state="hidden")
