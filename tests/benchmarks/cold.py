"""Cold starts of a function: its imports and its first answer."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.benchmarks.programs import SERVER_CORE, running
from tests.benchmarks.servers import Failed

MODULES = ("health", "models", "chat", "chat_stream")
OURS, EAGER, BARE = "first answer", "first answer of the eager stack", "bare Python"
AS_PACKED = "import sys; sys.modules.update(dict.fromkeys(('click', 'pygments', 'rich')))"
"""A packaged function does not contain what httpx imports for its command line."""
_EVENT = {
    "version": "2.0",
    "rawPath": "/api/health",
    "rawQueryString": "",
    "headers": {"host": "localhost"},
    "requestContext": {
        "http": {"method": "GET", "path": "/api/health", "sourceIp": "127.0.0.1"},
        "stage": "$default",
    },
    "isBase64Encoded": False,
}
_FIRST_ANSWER = """
import json
from {module} import handler
answer = handler(json.loads({event!r}), None)
assert answer["statusCode"] == 200, answer
assert json.loads(answer["body"])["ollama_status"] == "connected", answer
"""
"""Handles an API Gateway event as Lambda does."""


def measure(upstream_port: int, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds since process start, per round: imports and first answers.

    Import times exclude those of bare Python in the same round.

    Raises:
        Failed: a function cannot be imported, or gives a wrong answer.
    """
    environ = {
        "OLLAMA_BASE_URL": f"http://127.0.0.1:{upstream_port}",
        "AWS_LAMBDA_FUNCTION_NAME": "benchmark",
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(folder / "pycache"),
    }
    imports = [f"import handlers.{name}" for name in MODULES]
    codes = {name: name for name in imports}
    event = json.dumps(_EVENT)
    codes[OURS] = _FIRST_ANSWER.format(module="handlers.health", event=event)
    codes[EAGER] = _FIRST_ANSWER.format(module="tests.benchmarks.peers.eager", event=event)
    samples: dict[str, list[float]] = {name: [] for name in (BARE, *codes)}
    for number in range(rounds + 1):
        bare = _milliseconds("", environ)
        taken = {name: _milliseconds(code, environ) for name, code in codes.items()}
        if number:  # the first round writes the .pyc files
            samples[BARE].append(bare)
            for name, each in taken.items():
                samples[name].append(each - bare if name.startswith("import") else each)
    return samples


def _milliseconds(code: str, environ: Mapping[str, str]) -> float:
    """Return the time from starting Python until `code` has run."""
    command = [sys.executable, "-c", f"{AS_PACKED}\n{code}\nprint('over', flush=True)"]
    started = time.perf_counter()
    with running(command, SERVER_CORE, environ) as process:
        assert process.stdout
        if not any(line == "over\n" for line in process.stdout):
            raise Failed(f"cannot run: {code}")
        return (time.perf_counter() - started) * 1000
