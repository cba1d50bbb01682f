"""A lost network: noticed, reported, and no part of the answer lost."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.fake_ollama import FakeOllama, never_answers, stalls_after, tokens
from tests.page.conftest import IN_BOTH, Open
from tests.page.conversation import answered, say, stall, stored, wait_for_count, wait_until
from tests.page.relay import Relay, relay_to

NOTICED_S = 10


async def _through_relay(open_page: Open) -> tuple[Any, Relay]:
    relays = []

    @asynccontextmanager
    async def through(target: str) -> AsyncIterator[Relay]:
        async with relay_to(target) as relay:
            relays.append(relay)
            yield relay

    page = await open_page(through=through)
    return page, relays[0]


@IN_BOTH
async def test_silence_is_noticed_and_the_answer_continued(
    open_page: Open, fake: FakeOllama
) -> None:
    """A sleeping laptop or a pulled cable: the connection stays open, but nothing arrives."""
    page, relay = await _through_relay(open_page)
    fake.reply(stalls_after(3), tokens([" and", " on"]))
    await say(page, "Count")
    await page.wait_for_selector(".answer:has-text('0 1 2')")
    relay.cut()
    async with asyncio.timeout(NOTICED_S):
        await page.locator(".notice:has-text('The connection was lost')").wait_for(timeout=30_000)
    await page.wait_for_selector("#status:has-text('not reachable')")
    relay.mend()
    await page.wait_for_selector("#status:text('Connected')")
    await page.click(".notice .resume")
    await page.wait_for_selector(".answer:has-text('0 1 2 and on')")
    await answered(page)
    assert await page.locator(".notice, .versions").count() == 0
    (conversation,) = await stored(page)
    assert [message["text"] for message in conversation["messages"]] == ["Count", " 0 1 2 and on"]


@IN_BOTH
async def test_a_server_that_does_not_answer_is_noticed(open_page: Open, fake: FakeOllama) -> None:
    page, relay = await _through_relay(open_page)
    relay.cut()
    await say(page, "Hello")
    async with asyncio.timeout(NOTICED_S):
        await page.locator(".notice:has-text('cannot be reached')").wait_for(timeout=30_000)
    relay.mend()
    await page.click(".notice .again")
    await page.wait_for_selector(".answer:has-text('Paris')")


async def test_continue_sends_the_model_its_own_words(
    open_page: Open, fake: FakeOllama, sent: list[dict[str, Any]]
) -> None:
    page = await open_page()
    fake.reply(tokens(["Half"], done_reason="length"), tokens([" done"]))
    await say(page, "Hello")
    await page.click(".resume")
    await page.wait_for_selector(".answer:has-text('Half done')")
    assert sent[-1]["messages"][1] == {"role": "assistant", "content": "Half"}
    assert sent[-1]["messages"][2]["role"] == "user"
    assert "Continue exactly where" in sent[-1]["messages"][2]["content"]


async def test_patience_where_silence_is_normal(open_page: Open, fake: FakeOllama) -> None:
    """A slowly loading model is not mistaken for a lost network: heartbeats arrive meanwhile."""
    page = await open_page()
    fake.reply(tokens(["At", " last"], pace_s=9))
    await say(page, "Hello")
    answer = page.locator(".answer:has-text('At last')")
    await answer.wait_for(timeout=60_000)
    assert await page.locator(".notice").count() == 0


async def test_offline_is_shown_immediately_and_models_return(
    open_page: Open, fake: FakeOllama
) -> None:
    page = await open_page()
    await stall(page, fake)
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("Network.enable")
    conditions = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    await devtools.send("Network.emulateNetworkConditions", {"offline": True, **conditions})
    async with asyncio.timeout(3):  # long before the silence is noticed
        await page.locator("#status:has-text('not reachable')").wait_for()
    assert "0 1 2" in await page.inner_text(".answer")
    fake.models.append("new:1b")
    await devtools.send("Network.emulateNetworkConditions", {"offline": False, **conditions})
    await page.wait_for_selector("#status:text('Connected')")
    await page.wait_for_selector("#model option[value='new:1b']", state="attached")


async def test_a_failed_first_load_is_reported_and_retried(open_page: Open) -> None:
    page = await open_page()
    broken = True

    async def maybe(route: Any) -> None:
        await (route.abort() if broken else route.continue_())

    await page.route("**/api/models*", maybe)
    await page.route("**/api/health", maybe)
    await page.reload()
    await page.wait_for_selector("#notice:has-text('models could not be loaded')")
    broken = False
    await wait_for_count(page, "#model option", 2)
    assert await page.inner_text("#notice") == ""


@IN_BOTH
@pytest.mark.parametrize("saving", ["working", "too late"])
async def test_a_reload_keeps_every_character_and_the_draft(
    saving: str, open_page: Open, fake: FakeOllama
) -> None:
    page = await open_page()
    await say(page, "Hello")
    await answered(page)
    fake.reply(stalls_after(3), never_answers)
    await say(page, "Count")
    await page.wait_for_selector(".answer:has-text('0 1 2')")
    if saving == "too late":
        await page.evaluate(
            "() => { IDBObjectStore.prototype.put = () => { throw new Error('late'); }; }"
        )
    await page.fill("#message", "What I was ty")
    await page.reload()
    await page.wait_for_selector(".answer:has-text('0 1 2')")
    assert await page.input_value("#message") == "What I was ty"
    assert "page was closed before" in await page.locator(".assistant").last.inner_text()

    await page.click("#new")
    assert await page.input_value("#message") == ""
    await page.fill("#message", "Another thought")
    await page.reload()
    assert await page.input_value("#message") == "Another thought"
    await page.click(".open:has-text('Hello')")

    async def drafted() -> bool:
        return bool(await page.input_value("#message") == "What I was ty")

    await wait_until(drafted)
    await page.press("#message", "Enter")

    async def kept_nowhere_else() -> bool:
        kept = await page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
        return "What I was ty" not in kept and "answer:" not in kept

    await wait_until(kept_nowhere_else)
    assert "Another thought" in json.dumps(await page.evaluate("({...sessionStorage})"))


async def test_the_browser_is_asked_to_keep_the_store(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    await page.add_init_script("navigator.storage.persist = async () => (window.asked = true)")
    await page.reload()
    await say(page, "Hello")
    await answered(page)
    assert await page.evaluate("window.asked") is True


async def test_a_page_that_is_hidden_and_killed_loses_nothing(
    open_page: Open, fake: FakeOllama
) -> None:
    """Phones end a hidden page without another event."""
    page = await open_page()
    await stall(page, fake)
    kept = await page.evaluate(
        """() => {
          const field = document.querySelector("#message");
          field.value = "What I was ty";
          field.dispatchEvent(new Event("input"));
          dispatchEvent(new Event("visibilitychange"));
          return JSON.stringify(Object.entries(localStorage));
        }"""
    )
    assert "What I was ty" in kept
    assert " 0 1 2" in kept
    await page.click("#stop")
    await answered(page)
    assert "answer:" not in await page.evaluate("JSON.stringify({...localStorage})")
