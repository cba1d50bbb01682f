"""Finds each module's test by its name or in tests/README.md, and checks the map of core."""

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


def test_the_map_names_every_room_and_no_file_that_is_gone() -> None:
    core = ROOT / "core"
    text = (core / "README.md").read_text("utf-8")
    rooms = {path.name for path in core.iterdir() if (path / "__init__.py").exists()}
    modules = {path.name for path in core.glob("*.py") if path.name != "__init__.py"}
    assert set(re.findall(r"^\| \[\S+\]\((\S+)\) \|", text, re.MULTILINE)) == rooms | modules
    named = set(re.findall(r"`([a-z_0-9]+/[a-z_0-9/]+\.py)`", text))
    assert {
        name for name in named if not ((core / name).exists() or (ROOT / name).exists())
    } == set()
