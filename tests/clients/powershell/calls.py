"""Finds out what the documented calls of Invoke-RestMethod send, from their syntax alone."""

import re
from collections.abc import Iterator
from typing import Any

from tree_sitter import Node

from core.chat.conversation import context_of
from core.contract.schemas import Message
from tests.clients.powershell.syntax import find, text
from tests.clients.powershell.wire import Call, Generation

_CONTEXT = context_of([Message(role="user", content="안녕하세요!")], "안녕하세요!")
_VARIABLES = {"$answer.context": _CONTEXT, "$true": True, "$false": False}
_URI = re.compile(r"(?:\$BaseUri|https?://[^/]+)(/\S+)")


class Script:
    """A script whose variables are only strings, or objects for `ConvertTo-Json`."""

    def __init__(self, tree: Node, generation: Generation) -> None:
        self._tree = tree
        self._generation = generation
        self._variables: dict[str, str | bytes] = {}

    def calls(self) -> Iterator[Call]:
        """Yield the script's calls, in order."""
        for node in _statements(self._tree):
            if node.type == "assignment_expression":
                self._assign(node)
            else:
                yield self._call(_arguments(node))

    def _assign(self, assignment: Node) -> None:
        value = assignment.child_by_field_name("value")
        assert value
        meaning: str | bytes = text(value).strip("'\"")
        for table in find(value, "hash_literal_expression"):
            meaning = self._generation.to_json(_to_depth(_value(table), _depth(value)))
            if "UTF8.GetBytes" in text(value):
                meaning = meaning.encode()
            break  # the outermost; it has the others as values
        self._variables[text(assignment.child(0))] = meaning

    def _call(self, arguments: dict[str, str]) -> Call:
        values = {
            name: self._variables.get(source, source.strip("'\""))
            for name, source in arguments.items()
        }
        assert set(values) <= {"Uri", "Method", "Body", "ContentType", "Headers", "TimeoutSec"}
        path = _URI.fullmatch(str(values["Uri"]))
        assert path
        method = str(values.get("Method", "Get")).upper()
        if method == "GET":
            return Call(path[1], method=method)
        return Call(path[1], values["Body"], str(values["ContentType"]))


def _statements(node: Node) -> Iterator[Node]:
    """Yield the calls, and the assignments without calls, below `node`."""
    for child in node.children:
        is_call = child.type == "command" and text(child).startswith("Invoke-RestMethod ")
        is_value = child.type == "assignment_expression" and "Invoke-RestMethod" not in text(child)
        if is_call or is_value:
            yield child
        else:
            yield from _statements(child)


def _value(node: Node) -> Any:
    """Return the value of an expression of literals, tables and arrays."""
    match node.type:
        case "hash_literal_expression":
            entries = next(find(node, "hash_literal_body")).children
            return {
                text(next(find(entry, "key_expression"))): _value(next(find(entry, "pipeline")))
                for entry in entries
                if entry.type == "hash_entry"
            }
        case "array_expression":
            items = next(find(node, "statement_list")).children
            return [_value(item) for item in items if item.type == "pipeline"]
        case "integer_literal":
            return int(text(node))
    if len(node.children) == 1:
        return _value(node.children[0])
    return _VARIABLES.get(text(node), text(node).strip("'\""))


def _depth(value: Node) -> int:
    """Return the -Depth of the ConvertTo-Json in an expression; its default is 2."""
    for command in find(value, "command"):
        if "-Depth" in text(command):
            return int(_arguments(command)["Depth"])
    return 2


def _to_depth(value: Any, depth: int) -> Any:
    """Return `value` as ConvertTo-Json sees it: deeper levels are type names."""
    if not isinstance(value, dict | list):
        return value
    if depth < 0:
        return "System.Collections.Hashtable"
    if isinstance(value, dict):
        return {key: _to_depth(item, depth - 1) for key, item in value.items()}
    return [_to_depth(item, depth - 1) for item in value]


def _arguments(command: Node) -> dict[str, str]:
    """Return a command's arguments as written, by parameter name."""
    arguments: dict[str, str] = {}
    name = ""
    for node in next(find(command, "command_elements")).children:
        if node.type == "command_parameter":
            name = text(node).removeprefix("-")
        elif node.type != "command_argument_sep":
            arguments[name] = text(node)
    return arguments
