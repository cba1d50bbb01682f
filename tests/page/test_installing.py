"""The page as an app: installed, opened offline, and updated with its server."""

import asyncio
import struct
from typing import Any

import httpx
import pytest

from core.settings.networks import Networks
from handlers import page as page_module
from tests.conftest import Serve
from tests.fake_ollama import FakeOllama
from tests.page.conftest import IN_BOTH, Open
from tests.page.conversation import answered, say, wait_for_count, wait_until

CACHED = """async () => {
  const requests = [];
  for (const name of await caches.keys()) {
    requests.push(...(await (await caches.open(name)).keys()).map(({ url }) => url));
  }
  return requests.map((url) => new URL(url).pathname);
}"""


async def _is_ready(page: Any) -> None:
    await page.evaluate("async () => { await navigator.serviceWorker.ready; }")


async def test_manifest_and_icons(serve: Serve) -> None:
    url = await serve(anonymous_clients=Networks("none"))
    async with httpx.AsyncClient(base_url=url) as client:
        path = f"{page_module.STATIC_PATH}/manifest.webmanifest"
        assert path in (await client.get("/")).text
        answer = await client.get(path)
        assert answer.headers["content-type"].startswith("application/manifest+json")
        manifest = answer.json()
        assert manifest["start_url"] == manifest["scope"] == "/"
        assert {icon.get("purpose", "any") for icon in manifest["icons"]} == {"any", "maskable"}
        for icon in manifest["icons"]:
            image = await client.get(f"{page_module.STATIC_PATH}/{icon['src']}")
            assert image.headers["content-type"] == icon["type"]
            if icon["type"] == "image/png":
                width, height = struct.unpack(">II", image.content[16:24])
                assert icon["sizes"] == f"{width}x{height}"


async def test_service_worker_is_never_cached_and_has_no_gate(serve: Serve) -> None:
    closed = {"anonymous_clients": Networks("none"), "rate_limit": "1/hour"}
    one, other = await serve(**closed), await serve(default_model="qwen2.5:72b")
    async with httpx.AsyncClient() as client:
        first = await client.get(f"{one}/service-worker.js")
        assert first.status_code == 200
        assert first.headers["content-type"].startswith("text/javascript")
        assert first.headers["cache-control"] == "no-cache"
        assert first.headers["content-security-policy"] == (
            "default-src 'none'; connect-src 'self'"
        )
        assert first.content == (await client.get(f"{one}/service-worker.js")).content
        assert first.content != (await client.get(f"{other}/service-worker.js")).content


@IN_BOTH
async def test_opens_offline_with_what_was_said(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page(service_workers="allow")
    await _is_ready(page)
    await say(page, "Hello")
    await answered(page)
    await page.context.set_offline(True)
    await page.reload()
    await page.wait_for_selector(".answer:has-text('Paris')")
    await page.wait_for_selector("#status:text('The server is not reachable')")
    await page.context.set_offline(False)
    await say(page, "Again")
    await answered(page, 2)


async def test_nothing_of_the_api_is_cached(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page(service_workers="allow")
    await _is_ready(page)
    await page.reload()
    await say(page, "```python\nx = 1\n```")
    await answered(page)
    await page.wait_for_selector(".hljs-number")
    await page.click("#open-stats")
    await page.wait_for_selector("#stats tbody tr")
    cached = await page.evaluate(CACHED)
    static = page_module.STATIC_PATH
    assert {path for path in cached if not path.startswith(f"{static}/")} == {"/"}
    assert f"{static}/vendor/highlightjs/highlight.min.js" in cached
    assert not any("pdfjs" in path or "temml" in path for path in cached)


async def test_shell_is_all_that_the_page_loads_at_start(open_page: Open) -> None:
    page = await open_page()
    loaded = await page.evaluate(
        "performance.getEntriesByType('resource').map(({ name }) => new URL(name).pathname)"
    )
    static = page_module.STATIC_PATH
    wanted = {path for path in loaded if path.startswith(static)}
    assert wanted - {f"{static}/manifest.webmanifest"} == set(page_module._SHELL)


async def test_new_server_brings_a_new_page(
    open_page: Open, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = await open_page(service_workers="allow")
    await _is_ready(page)
    before = await page.evaluate("caches.keys()")
    monkeypatch.setattr(page_module, "_SERVICE_WORKER", page_module._SERVICE_WORKER + "// new\n")
    template = page_module._PAGE.template.replace("<body>", "<body class='new'>")
    monkeypatch.setattr(page_module, "_PAGE", type(page_module._PAGE)(template))
    await page.reload()
    await page.wait_for_selector("body.new")  # the network comes first

    async def is_waiting() -> bool:
        waiting = "async () => Boolean((await navigator.serviceWorker.getRegistration()).waiting)"
        return bool(await page.evaluate(waiting))

    await wait_until(is_waiting)
    assert before[0] in await page.evaluate("caches.keys()")  # a tab still uses it
    await page.close()
    context = page.context

    async def is_renewed() -> bool:
        other = await context.new_page()
        await other.goto("/")
        names = await other.evaluate("caches.keys()")
        await other.close()
        await asyncio.sleep(0.5)  # the worker takes over while there is no tab
        return len(names) == 1 and names != before

    await wait_until(is_renewed)


async def test_a_proxy_without_its_server_gives_the_page(open_page: Open) -> None:
    page = await open_page(service_workers="allow")
    await _is_ready(page)
    await page.context.route(
        lambda url: url.rstrip("/").count("/") == 2,
        lambda route: route.fulfill(status=502, body="Bad Gateway"),
    )
    await page.reload()
    await page.wait_for_selector("#message")
    await wait_for_count(page, "#starters button", 4)
