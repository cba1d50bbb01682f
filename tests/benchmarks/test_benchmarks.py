"""The benchmark itself works: it checks every answer it counts."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shutil import which

import msgspec
import pytest

from tests.benchmarks.load import Case, Load
from tests.benchmarks.programs import Built, build
from tests.benchmarks.results import Results
from tests.benchmarks.servers import Failed, Server, missing, upstream

pytestmark = [
    pytest.mark.skipif(not which("cc"), reason="there is no C compiler"),
    pytest.mark.skipif(not which("taskset"), reason="taskset is not installed"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("programs"))


@pytest.fixture
def source(built: Built) -> Iterator[Server]:
    with upstream(built.upstream) as server:
        yield server


def test_streams_have_the_requested_tokens_and_pace(built: Built, source: Server) -> None:
    figures = Load(built.load).run(source, Case("paced", 4, tokens=20, pace=50))
    assert figures.per_s < 4 * 50 * 2
    assert figures.cpu_us >= 0


def test_each_connection_repeats_its_request_until_time_is_up(built: Built, source: Server) -> None:
    figures = Load(built.load).run(source, Case("plain", 4, seconds=0.2))
    assert figures.per_s > 4 / 0.2
    assert figures.first_ms > 0


@pytest.mark.parametrize("case", [Case("plain", 4, 0.2), Case("stream", 4, tokens=20, pace=200)])
def test_openai_s_form_is_read_and_counted(built: Built, source: Server, case: Case) -> None:
    figures = Load(built.load).run(source, replace(case, openai=True))
    assert figures.per_s > 0
    assert figures.first_ms > 0


def test_a_wrong_answer_is_a_failure(built: Built, source: Server) -> None:
    elsewhere = Server("elsewhere", source.port, source.process, chat="/nowhere")
    with pytest.raises(Failed, match="HTTP status 404"):
        Load(built.load).run(elsewhere, Case("plain", 1, seconds=0.1))


def test_a_stream_with_an_error_status_is_a_failure(built: Built, source: Server) -> None:
    server = Server("version", source.port, source.process, stream="/api/version")
    with pytest.raises(Failed, match="HTTP status 404"):
        Load(built.load).run(server, Case("stream", 1, tokens=3))


@pytest.mark.skipif(bool(missing("nginx")), reason="nginx is not installed")
def test_it_measures_the_bundle_beside_nginx(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    command = [sys.executable, "-m", "tests.benchmarks", "--rounds=1", "--seconds=0.1"]
    command += ["--servers=nginx,bundle", "--streams=20", f"--json={path}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "| streamed flat-out, 64 streams: a token | " in ended.stdout
    assert "| /v1: streamed flat-out, 64 streams: a token | " in ended.stdout
    results = msgspec.json.decode(path.read_bytes(), type=Results)
    assert not results.failures
    assert set(results.held_kb) == {"nginx", "bundle"}
    for of_case in results.cases.values():
        for rounds in of_case.values():
            assert len(rounds) == 1
            assert rounds[0]
            assert rounds[0].per_s > 0
