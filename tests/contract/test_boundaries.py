"""The lowest and the highest value of every number in a request, against a real model.

The model's process may use little more memory than it needs: an option that makes it allocate
gigabytes (as `repeat_last_n` once did: 8.7 GB, and the end of the process) fails here.
"""

import resource
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import msgspec
import psutil
import pytest

from core.contract.schemas import Options
from tests.processes import bundle, running

MARGIN_BYTES = 512 * 2**20
"""How much more memory the model's process may use than at its start."""


def boundaries() -> Iterator[tuple[str, float]]:
    """Yield each option with the lowest and the highest value in its schema."""
    schema = msgspec.json.schema(Options)["$defs"]["Options"]["properties"]
    for name, described in schema.items():
        if described.get("type") in {"integer", "number"}:
            yield name, described["minimum"]
            yield name, described.get("maximum", described.get("exclusiveMaximum", 1) - 1)


@pytest.fixture(scope="module")
def server(installed: None) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    with ExitStack() as stack:
        engine = stack.enter_context(running("-m", "core.engine"))
        assert engine.stdout
        ollama = engine.stdout.readline().strip()
        own = {"MAX_PREDICT": "8", "RATE_LIMIT": "off", "DEFAULT_MODEL": "smollm2:135m"}
        url = stack.enter_context(bundle(ollama, **own))
        chat(url, {})  # what it allocates for its first answer
        most = psutil.Process(engine.pid).memory_info().vms + MARGIN_BYTES
        resource.prlimit(engine.pid, resource.RLIMIT_AS, (most, most))
        yield url, engine


def chat(url: str, options: dict[str, Any]) -> httpx.Response:
    body = {"message": "hi", "options": options}
    return httpx.post(f"{url}/api/chat", json=body, trust_env=False, timeout=60)


@pytest.mark.parametrize(("name", "value"), list(boundaries()))
def test_a_boundary_value_is_answered(
    server: tuple[str, subprocess.Popen[str]], name: str, value: float
) -> None:
    url, engine = server
    answer = chat(url, {name: value})
    assert answer.status_code == 200, answer.text
    assert engine.poll() is None


def test_every_number_has_two_bounds() -> None:
    schema = msgspec.json.schema(Options)["$defs"]["Options"]["properties"]
    numbers = {name for name, each in schema.items() if each.get("type") in {"integer", "number"}}
    assert numbers == {name for name, _ in boundaries()}
    assert len(numbers) == 11
