import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from core.context import Caller, Record
from core.contract.errors import OllamaError
from core.contract.retryable import UsageUnavailable
from core.usage.__main__ import main
from core.usage.ledger import Ledger, Usage, read_file

TODAY = datetime.now(UTC).date()


def record(caller: str = "key:ci", **fields: Any) -> Record:
    fixed: dict[str, Any] = {
        "request_id": "i",
        "method": "POST",
        "path": "/api/chat",
        "started_at": 0.0,
        "caller": Caller(id=caller, name="n", address="192.0.2.1"),
        "model": "m:1b",
        "status": 200,
        "prompt_tokens": 10,
        "tokens": 5,
        "duration_s": 3.0,
        "ended_at": time.time(),
        "queued_s": 1.0,
    }
    return Record(**{**fixed, **fields})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "usage.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    ledger = Ledger(str(path))
    yield ledger
    ledger.close()


def test_answers_are_counted_by_caller_model_and_day(ledger: Ledger) -> None:
    ledger.observe(record())
    ledger.observe(record())
    ledger.observe(record(model="m:8b"))
    ledger.observe(record("address:192.0.2.1"))
    ledger.observe(record("address:192.0.2.2"))
    day = TODAY.isoformat()
    assert ledger.read() == [
        Usage(day, "anonymous", "m:1b", 2, 20, 10, 4.0),
        Usage(day, "key:ci", "m:1b", 2, 20, 10, 4.0),
        Usage(day, "key:ci", "m:8b", 1, 10, 5, 2.0),
    ]
    assert [row.caller for row in ledger.read("key:ci")] == ["key:ci"] * 2
    assert ledger.read(since=TODAY + timedelta(days=1)) == []


@pytest.mark.parametrize(
    "fields",
    [{"model": ""}, {"status": 500}, {"error": OllamaError}, {"status": 0}],
)
def test_what_was_not_answered_is_not_counted(ledger: Ledger, fields: dict[str, Any]) -> None:
    ledger.observe(record(**fields))
    assert ledger.read() == []


def test_counts_survive_a_restart_and_add_up(path: Path) -> None:
    for _ in range(2):
        ledger = Ledger(str(path))
        ledger.observe(record())
        ledger.close()
    (row,) = read_file(str(path))
    assert (row.requests, row.tokens) == (2, 10)


def test_a_killed_process_has_lost_only_what_was_not_flushed(path: Path) -> None:
    code = """if True:
        import os, signal, sys
        from core.usage.ledger import Ledger
        from tests.core.usage.test_ledger import record
        ledger = Ledger(sys.argv[1])
        ledger.observe(record())
        ledger.flush()
        ledger.observe(record())
        os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    (row,) = read_file(str(path))
    assert row.requests == 1


def test_two_processes_may_write_the_same_file(path: Path) -> None:
    one, other = Ledger(str(path)), Ledger(str(path))
    for ledger in (one, other, one, other):
        ledger.observe(record())
        ledger.flush()
    one.close()
    other.close()
    assert read_file(str(path))[0].requests == 4


def test_no_process_lowers_what_another_has_counted_of_a_budget(path: Path) -> None:
    end = int(time.time()) + 1000
    one, other = Ledger(str(path)), Ledger(str(path))
    for ledger, spent in ((one, 90), (other, 10)):
        ledger.keep_spent("tokens:key:ci", end, spent)
        ledger.close()
    started = Ledger(str(path))
    assert started.spent()["tokens:key:ci"][0] == 90
    started.close()


def test_a_locked_file_stops_nothing_and_loses_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("core.usage.ledger.BUSY_S", 0.01)
    ledger = Ledger(str(path))
    ledger.observe(record())
    ledger.flush()
    blocker = sqlite3.connect(path)
    blocker.execute("BEGIN IMMEDIATE")
    ledger.observe(record())
    ledger.flush()
    ledger.flush()
    assert ledger.failures == 2
    assert caplog.text.count("USAGE_FILE cannot be written") == 1
    blocker.rollback()
    blocker.close()
    ledger.close()
    assert "can be written again" in caplog.text
    assert read_file(str(path))[0].requests == 2


def test_a_new_file_that_is_locked_at_first_is_used_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.usage.ledger.BUSY_S", 0.01)
    blocker = sqlite3.connect(path)
    blocker.execute("BEGIN EXCLUSIVE")
    ledger = Ledger(str(path))
    assert ledger.spent() == {}
    ledger.observe(record())
    with pytest.raises(UsageUnavailable):
        ledger.read()
    blocker.rollback()
    blocker.close()
    assert [row.requests for row in ledger.read()] == [1]
    ledger.close()


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_file_that_was_taken_away_is_made_again(path: Path, is_kept: bool) -> None:
    ledger = Ledger(str(path))
    ledger.observe(record())
    ledger.flush()
    old = path.rename(path.with_name("old.db"))
    if not is_kept:
        old.unlink()
    ledger.observe(record("key:other"))
    ledger.flush()
    assert [row.caller for row in read_file(str(path))] == ["key:other"]
    if is_kept:
        assert [row.caller for row in read_file(str(old))] == ["key:ci"]
    ledger.close()


def test_a_file_may_have_any_name(tmp_path: Path) -> None:
    path = str(tmp_path / "100%25 #1?.db")
    ledger = Ledger(path)
    ledger.observe(record())
    ledger.close()
    assert [row.requests for row in read_file(path)] == [1]


def test_a_path_that_cannot_be_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger("/nowhere/usage.db")
    ledger.observe(record())
    ledger.flush()
    assert ledger.failures == 1
    assert "USAGE_FILE cannot be written" in caplog.text
    ledger.close()


Run = Callable[..., str]


@pytest.fixture
def run(
    path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    monkeypatch.setenv("USAGE_FILE", str(path))
    for caller in ("key:ci", "key:ci", "key:page"):
        ledger.observe(record(caller))
    ledger.flush()

    def run(*arguments: str) -> str:
        main(arguments)
        return capsys.readouterr().out

    return run


def test_the_table_is_for_people(run: Run) -> None:
    assert run().splitlines() == [
        "key       model  requests  prompt_tokens  tokens  seconds",
        "key:ci    m:1b          2             20      10      4.0",
        "key:page  m:1b          1             10       5      2.0",
    ]


def test_programs_get_csv_or_json(run: Run) -> None:
    day = TODAY.isoformat()
    assert run("--csv", "--by", "day").splitlines() == [
        "day,requests,prompt_tokens,tokens,seconds",
        f"{day},3,30,15,6.0",
    ]
    rows = json.loads(run("--json", "--by", "model,key", "--since", day))
    assert rows[0]["key"] == "key:ci"
    assert json.loads(run("--json", "--since", str(date.max))) == []


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "Set USAGE_FILE to the path"),
        ("/nowhere/usage.db", "There is no /nowhere/usage.db yet. A server with this USAGE_FILE"),
        (__file__, "USAGE_FILE cannot be read: file is not a database"),
    ],
)
def test_without_a_file_it_says_what_to_do(
    value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USAGE_FILE", value)
    with pytest.raises(SystemExit, match=said):
        main([])


def test_an_invalid_setting_is_not_taken_for_a_broken_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "many")
    with pytest.raises(SystemExit, match=r"^PORT is invalid: expected"):
        main([])
