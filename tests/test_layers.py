"""The layering rule: a room imports only rooms below it; siblings do not import each other."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"contract", "settings", "moment"},
    {"awaitables"},
    {"context"},
    {"ollama", "keys", "observe", "usage"},
    {"gate", "chat"},
    {"serving", "v1"},
    {"instruments"},
    {"app"},
    {"doctor"},
    {"handlers"},
]
BELOW = {
    room: set().union(*FLOORS[:floor]) for floor, rooms in enumerate(FLOORS) for room in rooms
} | {"engine": {"contract"}}


def room_of(module: str) -> str:
    """Return the room of `core.gate.auth`, `core.app` or `handlers.chat`."""
    top, _, rest = module.partition(".")
    return rest.partition(".")[0] if top == "core" else top


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


MODULES = sorted((*ROOT.glob("core/**/*.py"), *ROOT.glob("handlers/**/*.py")))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_room_imports_only_what_stands_below_it(path: Path) -> None:
    room = room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if room == "__init__":
        room = "context"  # core/__init__.py, a docstring
    used = {room_of(name) for name in imports(path) if name.startswith(("core.", "handlers."))} - {
        "__version__"
    }
    assert used - {room} <= BELOW[room]
