"""A module's test is found by its name, or in the list of tests/README.md."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
LIST = re.compile(r"^\| `(\w\S+\.py)` \| `(\S+\.py)` \|$", re.MULTILINE)


def mirror(module: Path) -> Path:
    name = module.stem.removeprefix("__").removesuffix("__")
    return TESTS / module.parent.relative_to(ROOT) / f"test_{name}.py"


def test_every_module_has_a_test_of_its_name_or_is_listed() -> None:
    listed = dict(LIST.findall((TESTS / "README.md").read_text("utf-8")))
    modules = (path for room in ("core", "handlers") for path in (ROOT / room).rglob("*.py"))
    without = {
        module.relative_to(ROOT).as_posix()
        for module in modules
        if module.name != "__init__.py" and not mirror(module).exists()
    }
    assert without == set(listed), "add a test of the module's name, or mend tests/README.md"
    assert all((TESTS / test).is_file() for test in listed.values())
