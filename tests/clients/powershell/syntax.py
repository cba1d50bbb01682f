"""Reads PowerShell with a parser: PyPI, npm and Debian have no interpreter for it."""

from collections.abc import Iterator

import tree_sitter_powershell
from tree_sitter import Language, Node, Parser

_parser = Parser(Language(tree_sitter_powershell.language()))


def parse(source: str) -> Node:
    """Return the syntax tree of `source`, which is without a BOM."""
    return _parser.parse(source.encode()).root_node


def mistakes(node: Node) -> list[str]:
    """Return what the parser does not understand below `node`, and where."""
    if node.is_error or node.is_missing:
        return [f"line {node.start_point.row + 1}: {node.type} {text(node)!r}"]
    return [mistake for child in node.children for mistake in mistakes(child)]


def find(node: Node, type_: str) -> Iterator[Node]:
    """Yield each node of `type_` below `node`, in the order of the source."""
    for child in node.children:
        if child.type == type_:
            yield child
        yield from find(child, type_)


def text(node: Node | None) -> str:
    """Return the source of `node`."""
    assert node
    assert node.text is not None
    return node.text.decode()
