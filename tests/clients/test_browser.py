"""Pages of another origin, in a real browser."""

import asyncio
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.clients.conftest import EXAMPLES
from tests.conftest import Serve
from tests.fake_ollama import (
    Connection,
    FakeOllama,
    Reply,
    after,
    never_answers,
    stalls_after,
    tokens,
)
from tests.page.conftest import browser  # noqa: F401 - a fixture

LOOP = """
async ([server, message, patienceMs]) => {
  const health = await fetch(`${server}/api/health`, { signal: AbortSignal.timeout(3000) });
  if ((await health.json()).ollama_status !== 'connected') throw new Error('disconnected');
  const request = {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ message }),
  };
  let said = '';
  try {
    const impatience = AbortSignal.timeout(patienceMs);
    const answer = await fetch(`${server}/api/chat/stream`, { ...request, signal: impatience });
    const reader = answer.body.getReader();
    const decoder = new TextDecoder();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return ['stream', said];
      for (const line of decoder.decode(value).split('\\n').filter(Boolean)) {
        said += JSON.parse(line).response;
      }
    }
  } catch (failure) {
    if (failure.name !== 'TimeoutError') throw failure;
    const answer = await fetch(`${server}/api/chat`, request);
    return ['plain', (await answer.json()).response];
  }
}
"""
"""As people write it: every chunk is assumed to be whole lines."""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - it is called so
        pass


@pytest.fixture(scope="module")
def pages() -> Iterator[str]:
    """The origin that serves the example."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=EXAMPLES)) as server:
        thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.05))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
async def page(browser: Any, pages: str) -> Any:  # noqa: F811 - the fixture
    page = await browser.new_page()
    page.set_default_timeout(60_000)  # a real model shares two cores with the browser
    await page.goto(f"{pages}/browser.html")
    return page


async def ask(page: Any, server: str, message: str = "안녕하세요!", key: str = "") -> str:
    await page.get_by_label("Server").fill(server)
    await page.get_by_label("Message").fill(message)
    await page.get_by_label("API key").fill(key)
    await page.get_by_role("button").click()
    status = page.get_by_role("status").filter(has_not_text="Asking")
    return str(await status.inner_text())


async def test_the_example_asks_a_real_model(
    serve: Serve, engine_url: str, page: Any, pages: str
) -> None:
    url = await serve(
        ollama_base_url=engine_url,
        default_model="smollm2:135m",
        max_predict=20,
        cors_origins=[pages],
    )
    assert await ask(page, url) == "Done"
    assert (await page.locator("#answer").inner_text()).strip()


async def test_the_example_shows_hangul_and_failures(
    serve: Serve, fake: FakeOllama, page: Any, pages: str
) -> None:
    url = await serve(cors_origins=[pages])
    fake.reply(tokens(["안녕", "하세요", " \u2028👋"]), after(2, Connection.reset))
    assert await ask(page, url, "잘 지내요?") == "Done"
    assert await page.locator("#answer").text_content() == "안녕하세요 \u2028👋"
    assert fake.asked()[0].json["messages"][0]["content"] == "잘 지내요?"
    assert (await ask(page, url)).startswith("Ollama connection error")
    assert (await ask(page, url, key="wrong")).startswith("401: Invalid credentials")
    await fake.stop()
    assert await ask(page, url) == "The server or its Ollama is not reachable"


async def test_the_example_takes_a_stream_without_its_end_for_no_answer(
    serve: Serve, page: Any, pages: str
) -> None:
    async def cut_off(route: Any) -> None:
        headers = {"Access-Control-Allow-Origin": pages}
        await route.fulfill(headers=headers, body='{"response":"안녕","done":false}\n')

    await page.route("**/api/chat/stream", cut_off)
    assert await ask(page, await serve(cors_origins=[pages])) == "The answer was cut off"
    assert await page.locator("#answer").text_content() == "안녕"


async def test_a_page_of_an_origin_that_is_not_listed_gets_nothing(
    serve: Serve, fake: FakeOllama, page: Any
) -> None:
    assert await ask(page, await serve()) == "The server or its Ollama is not reachable"
    assert not fake.asked()


async def test_a_loop_that_keeps_no_partial_lines_loses_nothing(
    serve: Serve, fake: FakeOllama, page: Any, pages: str
) -> None:
    words = [f"말{number} " for number in range(100)] + ["긴 " * 2500] + ["끝"]
    fake.reply(tokens(words, pace_s=0.002))
    url = await serve(cors_origins=[pages])
    assert await page.evaluate(LOOP, [url, "안녕", 60_000]) == ["stream", "".join(words)]


PATIENCE_ENDS = """() => {
  const { timeout } = AbortSignal;
  const patience = new AbortController();
  AbortSignal.timeout = (ms) => (ms === 500 ? patience.signal : timeout.call(AbortSignal, ms));
  window.losePatience = () => patience.abort(new DOMException("", "TimeoutError"));
}"""
"""Lets the test say when 500 ms are over."""


@pytest.mark.parametrize("max_concurrent", [1, 4])
@pytest.mark.parametrize("first", [never_answers, stalls_after(3)])
async def test_a_page_that_falls_back_does_not_run_the_model_twice(
    serve: Serve, fake: FakeOllama, page: Any, pages: str, max_concurrent: int, first: Reply
) -> None:
    fake.reply(first, tokens(["늦게", " 왔네요"], pace_s=0.5))
    url = await serve(cors_origins=[pages], max_concurrent=max_concurrent, queue_timeout_s=10)
    await page.evaluate(PATIENCE_ENDS)
    answer = asyncio.create_task(page.evaluate(LOOP, [url, "안녕", 500]))
    await fake.wait_for(1)
    await page.wait_for_timeout(100)  # for what has been said so far
    await page.evaluate("losePatience()")
    assert await answer == ["plain", "늦게 왔네요"]
    dropped, asked_again = fake.asked()
    assert (dropped.json["stream"], asked_again.json["stream"]) == (True, False)
    assert dropped.disconnected_at is not None
    if max_concurrent == 1:
        assert dropped.disconnected_at <= asked_again.received_at
    else:  # the new request may overtake the end of the old one, by no more than a moment
        assert dropped.disconnected_at - asked_again.received_at < 0.5
