"""The page as it is served: small, cached by its content, and isolated from all other sites."""

import gzip
import re
from typing import Any

import httpx
import pytest

from core.settings.networks import Networks
from handlers import page
from tests.conftest import Serve
from tests.fake_ollama import FakeOllama, tokens
from tests.page.conftest import Open
from tests.page.conversation import answered, say, wait_until

BUDGET = 150_000
"""The most bytes for the whole page, compressed."""
FIRST_BUDGET = 110_000
"""The same before anything optional is loaded."""


async def test_page(serve: Serve) -> None:
    url = await serve(default_model="qwen2.5:72b")
    async with httpx.AsyncClient(base_url=url) as client:
        page = await client.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["cache-control"] == "no-cache"
        assert page.headers["content-encoding"] == "gzip"
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert '<meta name="default-model" content="qwen2.5:72b">' in page.text
        assert "$" not in page.text
        assert not re.search(r"<(script|style)>| (style|on\w+)=", page.text)

        (path,) = set(re.findall(r'"(/static/[^"#]+/main\.js)"', page.text))
        script = await client.get(path)
        assert script.headers["content-type"].startswith("text/javascript")
        assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert script.headers["content-encoding"] == "gzip"
        plain = await client.get(path, headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == script.content
        for wrong in ("/static/x.js", f"{path}x", path.replace("js/", "../../page.py#")):
            missing = await client.get(wrong)
            assert missing.status_code == 404
            assert missing.json()["success"] is False
            assert "immutable" not in missing.headers.get("cache-control", "")
        assert (await client.post("/")).status_code == 405


async def test_page_has_no_secrets_and_no_gate(serve: Serve) -> None:
    url = await serve(anonymous_clients=Networks("none"), rate_limit="1/hour")
    async with httpx.AsyncClient(base_url=url) as client:
        page = await client.get("/")
        assert page.status_code == 200
        for path in re.findall(r'"(/static/[^"#]+)"', page.text):
            assert (await client.get(path)).status_code == 200


async def test_all_of_it_is_small(open_page: Open, fake: FakeOllama) -> None:
    page = await open_page()
    fake.reply(tokens(["```python\nx = 1\n```"]))
    await say(page, "Code, please")
    await answered(page)
    await page.wait_for_selector(".hljs-number")
    loaded: list[dict[str, Any]] = await page.evaluate(
        """performance.getEntriesByType("resource").concat(performance.getEntriesByType("navigation"))
          .map(({ name, encodedBodySize }) => ({ name, encodedBodySize }))"""
    )
    files = {
        entry["name"]: entry["encodedBodySize"] for entry in loaded if "/api/" not in entry["name"]
    }
    assert 100_000 < sum(files.values()) < BUDGET
    (highlighter,) = (name for name in files if "highlight" in name)
    del files[highlighter]
    assert sum(files.values()) < FIRST_BUDGET


async def test_first_paint_does_not_wait_for_vendors(open_page: Open) -> None:
    page = await open_page()
    await page.route("**/vendor/**", lambda route: None)
    await page.goto(page.url, wait_until="commit")
    await page.wait_for_selector("#message")

    async def is_painted() -> bool:
        paints = "performance.getEntriesByType('paint').map(({ name }) => name)"
        return "first-contentful-paint" in await page.evaluate(paints)

    await wait_until(is_painted)
    await page.unroute_all(behavior="ignoreErrors")


async def test_a_file_is_compressed_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    compressed: list[int] = []

    def compress(data: bytes, **options: int) -> bytes:
        compressed.append(len(data))
        return original(data, **options)

    original = gzip.compress
    monkeypatch.setattr(gzip, "compress", compress)
    page._compressed.cache_clear()
    async with httpx.AsyncClient(base_url=await serve()) as client:
        html = await client.get("/")
        (path,) = set(re.findall(r'"(/static/[^"#]+/main\.js)"', html.text))
        answers = [await client.get(path) for _ in range(3)]
        head = await client.head(path)
        part = await client.get(path, headers={"Range": "bytes=0-9"})
    assert len(compressed) == 1
    assert {answer.content for answer in answers} == {answers[0].content}
    assert head.headers["content-length"] == answers[0].headers["content-length"]
    assert (part.status_code, part.content) == (206, answers[0].content[:10])
