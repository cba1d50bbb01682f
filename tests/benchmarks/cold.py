"""How long a function takes from nothing: its imports, and its first answer."""

import json
import subprocess
import sys
import time
from statistics import median

from tests.benchmarks.servers import LOAD_CORE

MODULES = ("health", "models", "chat", "chat_stream")
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
from {module} import handler
answer = handler({event}, None)
assert answer["statusCode"] == 200 and "connected" in answer["body"], answer
"""


def _seconds(code: str, **environ: str) -> float:
    command = ["taskset", "-c", str(LOAD_CORE - 1), sys.executable, "-c", code]
    started = time.perf_counter()
    subprocess.run(command, env={"PATH": "/usr/bin:/bin", **environ}, check=True)
    return time.perf_counter() - started


def measure(upstream_port: int, rounds: int) -> dict[str, float]:
    """Return milliseconds over those of bare Python, by module, and of the first answers.

    The ratio `health / eager` is the median of pairs of the same round.
    """
    url = {"OLLAMA_BASE_URL": f"http://127.0.0.1:{upstream_port}"}
    event = json.dumps(_EVENT).replace("false", "False")
    codes = {module: f"import handlers.{module}" for module in MODULES}
    for name, module in (
        ("first answer", "handlers.health"),
        ("first answer of the eager stack", "tests.benchmarks.peers.eager"),
    ):
        codes[name] = _FIRST_ANSWER.format(module=module, event=event)
    samples: dict[str, list[float]] = {name: [] for name in codes}
    for number in range(rounds + 1):
        bare = _seconds("pass")
        for name, code in codes.items():
            taken = _seconds(code, **url) - bare
            if number:  # the first one writes the .pyc files
                samples[name].append(taken * 1000)
    ours, eager = samples["first answer"], samples["first answer of the eager stack"]
    ratio = median(a / b for a, b in zip(ours, eager, strict=True))
    return {**{name: median(times) for name, times in samples.items()}, "health / eager": ratio}
