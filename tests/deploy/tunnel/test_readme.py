"""The tunnel's guide, as far as a program can follow it."""

import re

from tests.deploy.tunnel.loopback import FILES
from tests.programs import ROOT

GUIDE = (FILES / "README.md").read_text("utf-8")


def test_every_file_is_installed() -> None:
    named = set(re.findall(r"\bdeploy/tunnel/[\w./-]*\w", GUIDE)) - {"deploy/tunnel"}
    machines = {"relay", "ollama-host"}
    installed = {path for path in FILES.rglob("*") if path.parent.name in machines}
    assert {ROOT / name for name in named} == installed | {FILES / "certificates.sh"}


def test_what_it_explains_is_what_is_said() -> None:
    said = (FILES / "relay/nginx.conf").read_text("utf-8")
    said += re.sub(r'"\s+f?"', "", (FILES / "check.py").read_text("utf-8"))
    table = GUIDE.partition("| it says | do |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    phrases = [phrase for row in rows for phrase in re.findall("`(.*?)`", row)]
    assert len(phrases) > len(rows) >= 9
    assert [phrase for phrase in phrases if phrase not in said] == []
