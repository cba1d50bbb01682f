"""Checks on Ollama: whether it answers, its version, its models, its GPU."""

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime

import httpx
import msgspec

from core.contract.errors import ApiError
from core.doctor import access
from core.doctor.findings import Finding, ok, problem, warning
from core.ollama.api import parse
from core.ollama.default import PREFERRED
from core.ollama.transport import HTTPTransport
from core.ollama.upstream import Upstream
from core.settings.schema import Settings

TIMEOUT_S = 10
"""Ollama answers all of this from memory, within milliseconds."""
MAX_CLOCK_SKEW_S = 60
SMALL_CONTEXT = 4096
"""Ollama's default for small GPUs, which a long conversation fills."""
FAULTS = {
    (0, 25): "a token id that its model does not know crashes it",
    (0, 30): "some JSON schemas in format crash it",
}
"""Faults, by the first version without them; the gateway blocks requests known to cause them."""


class _Version(msgspec.Struct):
    version: str


class _Model(msgspec.Struct):
    name: str
    size: int = 0
    size_vram: int = 0
    context_length: int = 0


class _Models(msgspec.Struct):
    models: list[_Model]


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Check the Ollama at OLLAMA_BASE_URL, by the calls that the gateway makes."""
    upstream = Upstream(settings)
    try:
        async with httpx.AsyncClient(
            base_url=settings.ollama_base_url,
            transport=HTTPTransport(upstream.pool),
            headers=upstream.headers,
        ) as client:
            try:
                answer = await _get(client, "/api/version")
                version = parse(answer, answer.content, _Version).version
            except (httpx.HTTPError, ApiError) as error:
                yield await asyncio.to_thread(_unreachable, settings, error)
                return
            yield _version(version)
            if _tunnelled(settings):
                yield ok(
                    "tunnel",
                    f"Ollama answers through it, in {answer.elapsed.total_seconds():.2f} s",
                )
            yield _clock(answer)
            async for finding in _models(client, settings):
                yield finding
    finally:
        upstream.pool.close()


def _unreachable(settings: Settings, error: Exception) -> Finding:
    reason = str(error) or type(error).__name__
    text = f"no Ollama answers at {settings.ollama_base_url}: {reason}"
    if not _tunnelled(settings) and access.is_connected(settings):
        return warning(
            "ollama",
            f"{text}; but the server on PORT {settings.port} has another Ollama, or runs the "
            "built-in model",
            "for the other checks, start the doctor with the server's OLLAMA_BASE_URL",
        )
    if _tunnelled(settings):
        advice = "it is behind a tunnel: python -m deploy.tunnel.check says where it ends"
    else:
        advice = "systemctl status ollama; is OLLAMA_BASE_URL right, as seen from this process?"
    return problem("ollama", text, advice)


def _tunnelled(settings: Settings) -> bool:
    return bool(settings.ollama_client_cert or settings.ollama_headers)


def _version(version: str) -> Finding:
    found = re.match(r"(\d+)\.(\d+)", version)
    numbers = (int(found[1]), int(found[2])) if found else (sys.maxsize, 0)
    faults = [fault for fixed, fault in FAULTS.items() if numbers < fixed]
    if faults:
        return warning(
            "ollama", f"answers, but is old ({version}): {'; '.join(faults)}", "upgrade Ollama"
        )
    return ok("ollama", f"version {version} answers")


def _clock(answer: httpx.Response) -> Finding:
    """Compare this machine's clock with Ollama's: tokens and certificates expire by it."""
    try:
        skew_s = time.time() - parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError):
        return ok("clock", "Ollama sends no date to compare with")
    if abs(skew_s) > MAX_CLOCK_SKEW_S:
        return warning(
            "clock",
            f"differs from Ollama's by {skew_s:+.0f} s, so tokens and certificates may be refused",
            "timedatectl set-ntp true, on both machines",
        )
    return ok("clock", "agrees with Ollama's")


async def _models(client: httpx.AsyncClient, settings: Settings) -> AsyncIterator[Finding]:
    try:
        installed = await _list(client, "/api/tags")
        loaded = await _list(client, "/api/ps")
    except (httpx.HTTPError, ApiError) as error:
        yield problem("models", f"cannot be listed: {error}", "journalctl -u ollama")
        return
    yield _default([model.name for model in installed], settings.default_model)
    if not loaded:
        yield ok("gpu", "no model is loaded; send a message to see where it runs")
    for model in loaded:
        yield _place(model)


def _default(names: list[str], default: str) -> Finding:
    if not names:
        return problem("models", "none is installed", f"ollama pull {default or 'llama3.1:8b'}")
    if default.lower() in {name.lower() for name in (*names, *map(_untagged, names))}:
        return ok("models", f"{len(names)} installed, the default {default} among them")
    if default:
        return problem(
            "models",
            f"the default {default} is not installed; installed are {', '.join(names)}",
            f"ollama pull {default}, or set DEFAULT_MODEL",
        )
    if PREFERRED in names:
        return ok("models", f"{len(names)} installed, {PREFERRED} among them, which is the default")
    return ok("models", f"{len(names)} installed; DEFAULT_MODEL is unset, so one of them is used")


def _place(model: _Model) -> Finding:
    share = model.size_vram / model.size if model.size else 0
    context = f", context {model.context_length}" if model.context_length else ""
    if share < 1:
        where = f"{share:.0%} of it on the GPU" if share else "entirely on the CPU"
        return warning(
            "gpu",
            f"{model.name} is {where}{context}: slow",
            "a smaller model or context; nvidia-smi shows who else uses the memory",
        )
    if 0 < model.context_length <= SMALL_CONTEXT:
        return warning(
            "gpu",
            f"{model.name} is on the GPU{context}: long conversations are refused",
            "start Ollama with a larger OLLAMA_CONTEXT_LENGTH",
        )
    return ok("gpu", f"{model.name} is on the GPU{context}")


def _untagged(name: str) -> str:
    return name.removesuffix(":latest")


async def _list(client: httpx.AsyncClient, path: str) -> list[_Model]:
    answer = await _get(client, path)
    return parse(answer, answer.content, _Models).models


async def _get(client: httpx.AsyncClient, path: str) -> httpx.Response:
    """Return the answer; `HTTPTransport` leaves the time limit to its caller."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await client.get(path)
    except TimeoutError:
        raise httpx.ReadTimeout(f"no answer within {TIMEOUT_S} seconds") from None
