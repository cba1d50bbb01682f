"""deploy/README.md explains every package that a cold function imports."""

import re

import pytest

from tests.benchmarks import imports
from tests.programs import ROOT

GUIDE = (ROOT / "deploy/README.md").read_text("utf-8")
ROW = r"\| ([^|`]+?) \| ([\d.]*) ?\| ([\d.]*) ?\| ([\d.]*) ?\|[^|]*\|"


@pytest.mark.parametrize(("column", "function"), [*enumerate(imports.FUNCTIONS)])
def test_the_guide_lists_what_a_function_imports(column: int, function: str) -> None:
    rows = [re.fullmatch(ROW, line) for line in GUIDE.splitlines()]
    listed = {row[1] for row in rows if row and row[2 + column]}
    assert listed == {name for name, ms in imports.measure(function).items() if ms}
