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
    """A script whose variables are strings, or objects for `ConvertTo-Json`, and nothing else."""

    def __init__(self, tree: Node, generation: Generation) -> None:
        self._tree = tree
        self._generation = generation
        self._variables: dict[str, str | bytes] = {}

    def calls(self) -> Iterator[Call]:
        """Yield what the script calls, in its order."""
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
            meaning = self._generation.to_json(_fields(table))
            if "UTF8.GetBytes" in text(value):
                meaning = meaning.encode()
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
    """Yield the calls, and the assignments that hold none, below `node`."""
    for child in node.children:
        is_call = child.type == "command" and text(child).startswith("Invoke-RestMethod ")
        is_value = child.type == "assignment_expression" and "Invoke-RestMethod" not in text(child)
        if is_call or is_value:
            yield child
        else:
            yield from _statements(child)


def _fields(table: Node) -> dict[str, Any]:
    fields = {}
    for entry in find(table, "hash_entry"):
        key = text(next(find(entry, "key_expression")))
        value = text(next(find(entry, "pipeline")))
        fields[key] = _VARIABLES.get(value, value.strip("'\""))
    return fields


def _arguments(command: Node) -> dict[str, str]:
    """Return the arguments of a command as they are written, by the names of its parameters."""
    arguments: dict[str, str] = {}
    name = ""
    for node in next(find(command, "command_elements")).children:
        if node.type == "command_parameter":
            name = text(node).removeprefix("-")
        elif node.type != "command_argument_sep":
            arguments[name] = text(node)
    return arguments
