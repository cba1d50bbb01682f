"""The table of the user's own models."""

import asyncio
import csv
import subprocess
import sys
from pathlib import Path

import pytest

from core.keys import editing as keys
from core.settings.networks import Networks
from tests.benchmarks.models import QUESTIONS, Row, Timing, markdown
from tests.conftest import Serve
from tests.fake_ollama import FakeOllama, error, tokens


async def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.benchmarks.models", *map(str, arguments)]
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=False, timeout=60
    )


async def test_each_installed_model_gets_a_row(
    serve: Serve, fake: FakeOllama, tmp_path: Path
) -> None:
    pace_s = 0.05  # next to which a busy machine's delays are small
    fake.default = tokens(pace_s=pace_s)
    url = await serve(rate_limit="off")
    table = tmp_path / "table.csv"
    ended = await run("--base-url", url, "--rounds", "2", "--csv", table)
    assert ended.returncode == 0, ended.stderr
    head, _, *lines = ended.stdout.splitlines()
    assert head == "| model | short: s | medium: s | long: s | first token: s | tokens/s |"
    assert [line.split(" | ")[0] for line in lines] == ["| smollm2:135m", "| llama3.1:70b"]
    rows = list(csv.DictReader(table.read_text("utf-8").splitlines()))
    assert [(row["model"], row["question"]) for row in rows] == [
        (model, question) for model in ("smollm2:135m", "llama3.1:70b") for question in QUESTIONS
    ]
    for row in rows:
        assert row["answers"] == "2"
        assert pace_s <= float(row["first_token_s"]) < float(row["mean_s"])
        assert 0.2 < float(row["tokens_per_s"]) * pace_s < 1.2
    assert len(fake.asked()) == 2 * (1 + 2 * len(QUESTIONS))
    assert {request.json["options"]["num_predict"] for request in fake.asked()} == {
        1,
        *(limit for _, limit in QUESTIONS.values()),
    }


async def test_a_failing_model_is_left_out_and_reported(serve: Serve, fake: FakeOllama) -> None:
    fake.default = error(500, "out of memory")
    ended = await run("--base-url", await serve(), "--model", "smollm2:135m")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "smollm2:135m is left out: 500: Ollama" in ended.stderr


async def test_a_busy_server_is_retried(serve: Serve, fake: FakeOllama) -> None:
    fake.reply(error(503, "busy"))
    ended = await run("--base-url", await serve(), "--model", "smollm2:135m", "--rounds", "1")
    assert ended.returncode == 0, ended.stderr
    assert len(fake.asked()) == 1 + 1 + len(QUESTIONS)


async def test_a_key_is_read_from_a_file(serve: Serve, tmp_path: Path) -> None:
    stored, file = tmp_path / "keys.json", tmp_path / "key"
    file.write_text(keys.create(stored, "benchmark") + "\n", "utf-8")
    url = await serve(anonymous_clients=Networks("none"), api_keys_file=str(stored))
    arguments = ("--base-url", url, "--model", "smollm2:135m", "--rounds", "1")
    assert (await run(*arguments, "--api-key-file", file)).returncode == 0
    ended = await run(*arguments)
    assert ended.returncode == 1
    assert "401: Credentials are needed" in ended.stderr


@pytest.mark.parametrize("url", ["http://127.0.0.1:9"])
async def test_an_unreachable_server_is_a_one_line_error(url: str) -> None:
    ended = await run("--base-url", url)
    assert ended.returncode == 1
    assert ended.stderr.startswith(url)
    assert "Traceback" not in ended.stderr


def test_the_figures_are_means() -> None:
    timings = [Timing(2.0, 0.5, 16), Timing(4.0, 1.5, 26)]
    row = Row("m", "short", timings)
    assert (row.mean_s, row.first_token_s, row.tokens_per_s) == (3.0, 1.0, 10.0)
    assert markdown([row]).endswith("| m | 3.00 | 1.00 | 10.0 |")
    assert Row("m", "short", [Timing(1.0, 1.0, 1)]).tokens_per_s is None
