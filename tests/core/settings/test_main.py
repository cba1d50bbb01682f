import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.settings.__main__ import main
from tests.programs import ROOT


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(arguments)
    return capsys.readouterr().out


def test_the_reference_in_deploy_is_what_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "--markdown") == Path(ROOT, "deploy/SETTINGS.md").read_text("utf-8")


def test_the_values_in_force_are_printed_and_secrets_masked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JWT_SECRET", "0123456789abcdef0123456789abcdef")
    monkeypatch.setenv("ALLOWED_HOSTS", "a.example,b.example")
    lines = printed(capsys).splitlines()
    assert "JWT_SECRET=********" in lines
    assert "ALLOWED_HOSTS=a.example,b.example" in lines
    assert "RATE_LIMIT_FAIL_CLOSED=false" in lines
    assert "RATE_LIMIT_STORAGE=memory://" in lines


def test_an_invalid_value_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "many")
    with pytest.raises(SystemExit, match="PORT is invalid: expected"):
        main([])


@pytest.mark.parametrize("readme", ["README.md", "README.ko.md"])
def test_settings_in_the_readme_exist(readme: str, capsys: pytest.CaptureFixture[str]) -> None:
    known = {
        line.split("`")[1] for line in printed(capsys, "--markdown").splitlines() if "`" in line
    }
    table = [
        line.split("`")[1::2]
        for line in Path(ROOT, readme).read_text("utf-8").splitlines()
        if line.startswith("| `") and line.split("`")[1].isupper()
    ]
    assert len(table) >= 8
    reference = printed(capsys, "--markdown")
    for name, *default in table:
        assert name in known
        assert not default or f"| `{name}` |" in reference


def test_a_query_may_be_a_key_so_it_is_masked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JWT_JWKS_URL", "https://issuer.example/keys?code=secret&sig=secret")
    text = printed(capsys)
    assert "JWT_JWKS_URL=https://issuer.example/keys?********\n" in text
    assert "secret" not in text


@pytest.mark.parametrize("arguments", [[], ["--markdown"]])
def test_a_reader_that_has_seen_enough_ends_it_without_a_traceback(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "core.settings", *arguments]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (-signal.SIGPIPE, b"")
