"""`python -m tests.benchmarks.models --base-url URL`: how fast models are on your machine.

Asks each model a short, a medium and a long question through the API, one after the other.
An uncounted warm-up question loads the model first.
"""

import argparse
import csv
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import httpx
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

QUESTIONS = {
    "short": ("What is 2+2? Answer with a number.", 16),
    "medium": ("Explain in one paragraph what a hash table is.", 128),
    "long": ("Write an essay on the history of the printing press.", 512),
}
"""The questions, and the maximum number of tokens in the answer."""
TIMEOUT_S = 330
MOST_WAITS = 20
"""How often a question is retried while the server is busy."""
BUSY = {httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE}


class Failed(Exception):
    """A question failed; the text is the server's."""


@dataclass(frozen=True)
class Timing:
    """One answer."""

    whole_s: float
    first_token_s: float
    tokens: int

    @property
    def tokens_per_s(self) -> float | None:
        """The generation speed after the first token; None if the answer was too short to tell."""
        writing_s = self.whole_s - self.first_token_s
        return (self.tokens - 1) / writing_s if self.tokens > 1 and writing_s else None


@dataclass(frozen=True)
class Row:
    """One model's answers to one question."""

    model: str
    question: str
    timings: Sequence[Timing]

    @property
    def mean_s(self) -> float:
        """The mean response time."""
        return mean(timing.whole_s for timing in self.timings)

    @property
    def first_token_s(self) -> float:
        """The mean time to the first token."""
        return mean(timing.first_token_s for timing in self.timings)

    @property
    def tokens_per_s(self) -> float | None:
        """The mean speed."""
        return _mean(timing.tokens_per_s for timing in self.timings)


def main() -> int:
    """Ask, print the tables, and return 1 if a model failed."""
    arguments = _arguments()
    key = arguments.api_key_file.read_text("utf-8").strip() if arguments.api_key_file else None
    key = key or os.environ.get("OLLAMA_WEB_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    rows: list[Row] = []
    failures: list[str] = []
    with httpx.Client(base_url=arguments.base_url, headers=headers, timeout=TIMEOUT_S) as client:
        try:
            models = arguments.model or _installed(client)
        except (Failed, httpx.HTTPError) as failure:
            sys.exit(f"{arguments.base_url}: {failure}")
        with _progress(len(models) * (1 + arguments.rounds * len(QUESTIONS))) as advance:
            for model in models:
                try:
                    rows += _measure(client, model, arguments.rounds, advance)
                except (Failed, httpx.HTTPError) as failure:
                    failures.append(f"{model} is left out: {failure}")
    if rows:
        print(markdown(rows))
    if arguments.csv:
        with arguments.csv.open("w", encoding="utf-8", newline="") as file:
            write_csv(rows, file)
    print(*failures, sep="\n", end="\n" if failures else "", file=sys.stderr)
    return int(bool(failures))


def ask(client: httpx.Client, model: str, message: str, num_predict: int) -> Timing:
    """Ask one question; retry after a pause while the server is busy.

    Raises:
        Failed: there is no complete answer.
        httpx.HTTPError: the server is unreachable, or the connection broke.
    """
    options = {"num_predict": num_predict, "temperature": 0, "seed": 1}
    body = {"message": message, "model": model, "options": options}
    for _ in range(MOST_WAITS):
        started = time.perf_counter()
        first_token_s = None
        with client.stream("POST", "/api/chat/stream", json=body) as answer:
            if answer.is_error:
                answer.read()
                if answer.status_code in BUSY and "retry-after" in answer.headers:
                    time.sleep(int(answer.headers["retry-after"]))
                    continue
                raise Failed(f"{answer.status_code}: {_error(answer)}")
            for event in _events(answer):
                if "error" in event:
                    raise Failed(event["error"])
                if first_token_s is None:
                    first_token_s = time.perf_counter() - started
                if event["done"]:
                    whole_s = time.perf_counter() - started
                    return Timing(whole_s, first_token_s, event.get("eval_count", 0))
            raise Failed("the answer ended before it was complete")
    raise Failed(f"the server was busy {MOST_WAITS} times")


def markdown(rows: Sequence[Row]) -> str:
    """Return the specification's table, one row per model."""
    lines = [
        ["model", *(f"{name}: s" for name in QUESTIONS), "first token: s", "tokens/s"],
        ["---", *["---:"] * (len(QUESTIONS) + 2)],
    ]
    for model in dict.fromkeys(row.model for row in rows):
        own = [row for row in rows if row.model == model]
        first_token_s = mean(row.first_token_s for row in own)
        speed = _mean(row.tokens_per_s for row in own)
        times = (f"{row.mean_s:.2f}" for row in own)
        lines.append([model, *times, f"{first_token_s:.2f}", f"{speed:.1f}" if speed else "-"])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def write_csv(rows: Iterable[Row], file: Any) -> None:
    """Write one row per model and question."""
    writer = csv.writer(file)
    writer.writerow(["model", "question", "answers", "mean_s", "first_token_s", "tokens_per_s"])
    for row in rows:
        speed = "" if row.tokens_per_s is None else f"{row.tokens_per_s:.2f}"
        times = (f"{row.mean_s:.3f}", f"{row.first_token_s:.3f}")
        writer.writerow([row.model, row.question, len(row.timings), *times, speed])


def _measure(client: httpx.Client, model: str, rounds: int, advance: Any) -> list[Row]:
    ask(client, model, "Hello", 1)
    advance(model)
    rows = []
    for name, (message, num_predict) in QUESTIONS.items():
        timings = []
        for _ in range(rounds):
            timings.append(ask(client, model, message, num_predict))
            advance(model)
        rows.append(Row(model, name, timings))
    return rows


def _installed(client: httpx.Client) -> list[str]:
    answer = client.get("/api/models")
    if answer.is_error:
        raise Failed(f"{answer.status_code}: {_error(answer)}")
    models: list[str] = answer.json()["models"]
    return models


def _events(answer: httpx.Response) -> Iterator[dict[str, Any]]:
    rest = b""
    for data in answer.iter_bytes():
        *lines, rest = (rest + data).split(b"\n")
        yield from map(json.loads, lines)


def _error(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return "the answer is not from an Ollama Web API. Check --base-url"


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


@contextmanager
def _progress(steps: int) -> Iterator[Any]:
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("asking", total=steps)
        yield lambda model: progress.update(task, description=model, advance=1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.models", description=__doc__)
    parser.add_argument("--base-url", default="http://127.0.0.1:5000", help="default: %(default)s")
    parser.add_argument(
        "--model", action="append", help="model to ask, may be repeated; default: all"
    )
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="file for all figures")
    parser.add_argument(
        "--api-key-file", type=Path, metavar="FILE",
        help="file with the API key; default: OLLAMA_WEB_API_KEY from the environment, if set",
    )  # fmt: skip
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
