"""Every server error is shown in Korean on a Korean page."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import httpx

from core.contract import errors, retryable
from core.ollama import api, failures
from tests.page.conftest import Open
from tests.programs import ROOT

CLASSES = {
    name: class_
    for module in (errors, retryable)
    for name, class_ in vars(module).items()
    if inspect.isclass(class_) and issubclass(class_, errors.ApiError)
}

ELSEWHERE = ("core/v1/", "core/engine/", "core/contract/", "handlers/usage", "handlers/v1_")
"""Other APIs, whose errors the page never gets."""

MADE_FROM_PARTS = [
    errors.CredentialsNeeded(None),
    errors.CredentialsNeeded("192.0.2.1"),
    errors.InvalidCredentials("the API key has expired"),
    errors.MethodNotAllowed("PUT", "GET, HEAD"),
    errors.ModelNotFound("x", None),
    errors.ModelNotFound("x", []),
    errors.ModelNotFound("x", ["a:1b", "b:2b"]),
    errors.RequestTimeout(300),
    retryable.OllamaBusy(5),
    retryable.QueueFull("The queue is full: 64 requests wait for 4 slots", 9),
    retryable.QueueFull("No slot became free within 120 seconds", 9),
    retryable.RateLimited("Your address has too many connections: 256 are allowed", 5),
    retryable.NotReady(),
    retryable.MemoryFull(),
    retryable.ServerStopping(),
]
"""Errors whose texts are not literals where they are raised."""


def texts_of_ollama() -> Iterator[str]:
    """Yield the server's own descriptions of Ollama's failures."""
    for module in (api, failures):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Return) and isinstance(
                node.value, ast.Constant | ast.JoinedStr
            ):
                text = text_of(node.value)
                if text and re.search(r"\. |\?$|log", text) and "Ollama rejected" not in text:
                    yield str(errors.OllamaError(text))


def text_of(node: ast.expr) -> str | None:
    """Return the text of a literal, with 7 for each value in it."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join((text_of(part) or "") for part in node.values)
    return "7" if isinstance(node, ast.FormattedValue) else None


def texts_where_raised() -> Iterator[str]:
    """Yield the text of every error that is made with a literal."""
    for path in (*Path(ROOT, "core").rglob("*.py"), *Path(ROOT, "handlers").rglob("*.py")):
        if str(path.relative_to(ROOT)).startswith(ELSEWHERE):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            class_ = CLASSES.get(node.func.id)
            if class_ and any(text_of(argument) for argument in node.args):
                values = [text_of(argument) or 7 for argument in node.args]
                yield str(class_(*values))


def texts_of_fronts() -> Iterator[str]:
    """Yield what the fronts themselves answer to the calls of the page."""
    for path in ("caddy/Caddyfile", "nginx/ollama-web-api.conf", "haproxy/gateways.cfg"):
        text = (ROOT / "deploy" / path).read_text("utf-8")
        found = re.findall(r'"success":false,"error":"(.+?)"', text)
        assert len(found) > 3
        yield from (text for text in found if "The figures" not in text)


def texts_of_pools() -> Iterator[str]:
    """Yield the errors for what the front of several Ollama machines answers itself."""
    for path in ("haproxy.cfg", "haproxy/tags.lua"):
        found = re.findall(r'"error":"(every .+?)"', (ROOT / "deploy" / path).read_text("utf-8"))
        assert found
        for text in found:
            yield str(
                failures.failed_response(httpx.Response(503), b'{"error":"%b"}' % text.encode())
            )


async def test_every_error_is_korean_on_a_korean_page(open_page: Open) -> None:
    texts = {*texts_where_raised(), *texts_of_ollama(), *map(str, MADE_FROM_PARTS)}
    texts |= {*texts_of_fronts(), *texts_of_pools()}
    assert len(texts) > 70
    page = await open_page(locale="ko-KR")
    korean: list[tuple[str, str]] = await page.evaluate(
        """async (texts) => {
          const url = document.querySelector("script[src$='main.js']").src;
          const { translated } = await import(new URL("ko-server.js", url));
          return texts.map((text) => [text, translated(text)]);
        }""",
        sorted(texts),
    )
    unknown = [text for text, told in korean if not re.search(r"[가-힣]", told)]
    assert not unknown
    english = [
        (text, told)
        for text, told in korean
        if text.startswith("Ollama connection error") and re.search(r"\b(the|is|it)\b", told)
    ]
    assert not english
    assert all("Try again" not in told and "every Ollama" not in told for _, told in korean)
    kept = re.compile(r"[A-Z]+_[A-Z_]+|core\.keys create|ulimit -n|192\.0\.2\.1")
    less = [
        (text, told)
        for text, told in korean
        if not set(kept.findall(text)) <= set(kept.findall(told))
    ]
    assert not less, "the Korean text leaves out what to set or run"
