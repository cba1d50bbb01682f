"""What can be checked about the PowerShell client without running it."""

import re
from pathlib import Path

import msgspec
import pytest
from tree_sitter import Node

from core.contract.schemas import ChatRequest
from tests.clients.powershell.documents import CLIENTS, SCRIPTS, SNIPPETS, source
from tests.clients.powershell.syntax import find, mistakes, parse, text

MODULE = CLIENTS / "OllamaWebApi/OllamaWebApi.psm1"
REQUESTS = MODULE.with_name("Requests.ps1")
MANIFEST = MODULE.with_suffix(".psd1")
APPROVED_VERBS = {
    *("ConvertFrom", "ConvertTo", "Get", "Invoke", "New", "Read", "Receive", "Request", "Send"),
    *("Test", "Wait", "Write"),
}
"""Those of `Get-Verb` that a client like this may need."""
COMMANDS = {
    *("Add-Type", "ConvertFrom-Json", "ConvertTo-Json", "ForEach-Object", "Invoke-RestMethod"),
    *("Where-Object", "Write-Host", "Write-Verbose", "Write-Warning"),
}
"""The commands of Windows PowerShell 5.1 that the scripts call."""
TYPES = {
    *("bool", "int", "object", "psobject", "string", "switch", "uri", "void"),
    "System.ArgumentException",
    "System.Collections.IDictionary",
    "System.Convert",
    "System.Diagnostics.Stopwatch",
    "System.Exception",
    "System.IO.File",
    "System.IO.EndOfStreamException",
    "System.IO.StreamReader",
    "System.Management.Automation.ErrorCategory",
    "System.Management.Automation.ErrorRecord",
    "System.Management.Automation.PSCredential",
    "System.Net.CredentialCache",
    "System.Net.Http.Headers.AuthenticationHeaderValue",
    "System.Net.Http.HttpClient",
    "System.Net.Http.HttpClientHandler",
    "System.Net.Http.HttpCompletionOption",
    "System.Net.Http.HttpMethod",
    "System.Net.Http.HttpRequestException",
    "System.Net.Http.HttpRequestMessage",
    "System.Net.Http.StringContent",
    "System.Net.NetworkCredential",
    "System.Net.WebProxy",
    "System.Security.SecureString",
    "System.Text.Encoding",
    "System.Text.StringBuilder",
    "System.Threading.CancellationTokenSource",
    "System.Threading.Timeout",
    "System.TimeoutException",
}
"""The types that they use; .NET Framework 4.5.2, the oldest that 5.1 runs on, has them all."""
AUTOMATIC_VARIABLES = {
    *("_", "Clients", "PSBoundParameters", "PSCmdlet", "env:OLLAMA_WEB_API_KEY"),
    *("false", "null", "true"),
}
"""PowerShell's own that the module uses, and its one for all of it."""


def functions(path: Path) -> dict[str, Node]:
    """Return the functions that a script defines, by name."""
    found = find(parse(source(path)), "function_statement")
    return {text(next(find(node, "function_name"))): node for node in found}


def help_of(function: Node) -> str:
    """Return a function's comment-based help; empty without one."""
    match = re.match(r"function \S+ \{\s*<#(.*?)#>", text(function), re.DOTALL)
    return match[1] if match else ""


def module() -> dict[str, Node]:
    """Return all functions of the module, by name."""
    return functions(MODULE) | functions(REQUESTS)


def name_of(command: Node) -> str:
    """Return the name of the called command; empty where a file is dot-sourced."""
    return next((text(name) for name in find(command, "command_name")), "")


def arguments(command: Node) -> list[str]:
    """Return what follows a command's name: parameters and values."""
    elements = next(find(command, "command_elements")).children
    return [text(node) for node in elements if node.type != "command_argument_sep"]


def sections(function: Node) -> list[str]:
    """Return the keywords of a function's help, each with its parameter's name."""
    return re.findall(r"^\s*\.([A-Z]+(?: \w+)?)\s*$", help_of(function), re.MULTILINE)


def manifest() -> dict[str, str]:
    entries = find(parse(source(MANIFEST)), "hash_entry")
    parts = (text(entry).partition("=") for entry in entries)
    return {key.strip(): value.strip() for key, _, value in parts}


def strings(expression: str) -> list[str]:
    return re.findall(r"'([^']*)'", expression)


def parameters(function: Node) -> list[str]:
    block = next(find(function, "param_block"))
    declared = (node.children for node in find(block, "script_parameter"))
    names = [child for children in declared for child in children if child.type == "variable"]
    return [text(name).removeprefix("$") for name in names]


def examples(function: Node) -> list[str]:
    """Return the code of each example in a function's help, without the remarks."""
    parts = re.split(r"^\s*\.EXAMPLE\s*$", help_of(function), flags=re.MULTILINE)
    return [part.strip().partition("\n\n")[0] for part in parts[1:]]


def variables(node: Node) -> set[str]:
    found = [*find(node, "variable"), *find(node, "braced_variable")]
    return {re.sub(r"[$@{}]|script:", "", text(variable)) for variable in found}


EXPORTED = strings(manifest()["FunctionsToExport"])


def test_there_are_scripts_to_check() -> None:
    assert {MODULE, REQUESTS, MANIFEST, CLIENTS / "powershell.ps1"} <= set(SCRIPTS)
    assert SNIPPETS


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_sound(path: Path) -> None:
    assert mistakes(parse(source(path))) == []


@pytest.mark.parametrize("snippet", SNIPPETS.values(), ids=SNIPPETS)
def test_a_snippet_is_sound(snippet: str) -> None:
    assert mistakes(parse(snippet)) == []


@pytest.mark.parametrize(
    "mistake",
    ["if ($true) { 1 ", "function { ) }", "'안녕", "$a ? 1 : 2", "$a ?? 1", "$a ??= 1", "$a?.b"],
)
def test_the_parser_sees_mistakes_and_what_came_after_windows_powershell(mistake: str) -> None:
    assert mistakes(parse(mistake)) != []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_windows_powershell_reads_a_script_s_korean_and_its_lines(path: Path) -> None:
    content = path.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf"), "without a BOM, 5.1 takes it for ANSI"
    assert content.count(b"\r\n") == content.count(b"\n")
    assert content.endswith(b"\n")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_uses_what_windows_powershell_has(path: Path) -> None:
    tree = parse(source(path))
    assert not list(find(tree, "pipeline_chain_tail")), "&& and || came with PowerShell 7"
    used = {text(node) for node in find(tree, "command_name")}
    assert used <= COMMANDS | set(functions(path) if path.parent == CLIENTS else module())
    assert {text(node).strip("[]") for node in find(tree, "type_literal")} <= TYPES


def test_the_manifest_exports_the_functions_with_help() -> None:
    documented = [name for name, node in functions(MODULE).items() if help_of(node)]
    assert sorted(EXPORTED) == sorted(documented)
    assert set(EXPORTED) == {"Get-OllamaModel", "Invoke-OllamaChat", "Test-OllamaHealth"}


def test_the_manifest_is_for_both_generations() -> None:
    entries = manifest()
    assert strings(entries["RootModule"]) == [MODULE.name]
    assert strings(entries["PowerShellVersion"]) == ["5.1"]
    assert strings(entries["CompatiblePSEditions"]) == ["Desktop", "Core"]
    for name in ("CmdletsToExport", "VariablesToExport", "AliasesToExport"):
        assert entries[name] == "@()"


def test_the_manifest_is_ready_for_the_gallery() -> None:
    entries = manifest()
    assert {*strings(entries["FileList"])} == {path.name for path in MODULE.parent.iterdir()}
    data = next(node for node in find(parse(source(MANIFEST)), "hash_entry")
                if text(node).startswith("PSData"))  # fmt: skip
    keys = {text(key) for key in find(data, "key_expression")}
    assert keys == {"PSData", "Tags", "ReleaseNotes"}
    assert all(" " not in tag for tag in strings(entries["Tags"]))


def test_the_module_can_send_every_field_of_a_request() -> None:
    """`stream` is the path's."""
    chat = text(module()["Invoke-OllamaChat"])
    sent = set(re.findall(r"\$body\['(\w+)'\]", chat))
    assert sent == {*msgspec.json.schema(ChatRequest)["$defs"]["ChatRequest"]["properties"]} - {
        "stream"
    }


def test_what_is_deep_stays_whole() -> None:
    """Otherwise ConvertTo-Json silently stops at two levels."""
    calls = [node for node in find(parse(source(REQUESTS)), "command")
             if name_of(node) == "ConvertTo-Json"]  # fmt: skip
    assert calls
    for call in calls:
        assert "-Depth 100" in text(call)


def test_every_wait_has_a_limit() -> None:
    waits = [node for node in find(parse(source(REQUESTS)), "command")
             if name_of(node) == "Wait-Task"]  # fmt: skip
    assert len(waits) == 5
    for wait in waits:
        assert len(arguments(wait)) == 2, text(wait)


@pytest.mark.parametrize(
    "path",
    sorted(path for path in CLIENTS.rglob("*") if path.is_file()),
    ids=lambda path: path.name,
)
def test_no_client_sends_the_key_that_is_for_ollama_com(path: Path) -> None:
    assert "OLLAMA_API_KEY" not in path.read_text("utf-8")


def test_a_key_is_a_string_or_secure_or_from_the_environment() -> None:
    key = text(module()["ConvertTo-Key"])
    assert "$env:OLLAMA_WEB_API_KEY" in key
    assert "SecureString" in key
    for name in ("Invoke-OllamaChat", "Get-OllamaModel"):
        declared = next(find(module()[name], "param_block"))
        checks = [text(node) for node in find(declared, "attribute")
                  if "ValidateScript" in text(node)]  # fmt: skip
        assert len(checks) == 1
        assert "[System.Security.SecureString]" in checks[0]


def test_verbs_are_approved() -> None:
    names = list(module())
    assert names
    assert {name.partition("-")[0] for name in names} <= APPROVED_VERBS


@pytest.mark.parametrize("name", EXPORTED)
def test_help_is_complete(name: str) -> None:
    function = functions(MODULE)[name]
    keywords = sections(function)
    assert keywords[:2] == ["SYNOPSIS", "DESCRIPTION"]
    assert "EXAMPLE" in keywords
    documented = [key.partition(" ")[2] for key in keywords if key.startswith("PARAMETER ")]
    assert documented == parameters(function)


@pytest.mark.parametrize("name", EXPORTED)
def test_the_examples_of_help_are_sound(name: str) -> None:
    for example in examples(functions(MODULE)[name]):
        assert mistakes(parse(example)) == []
        assert name in example or "*-Ollama*" in example


def test_calls_of_the_module_s_functions_use_parameters_that_there_are() -> None:
    defined = module()
    allowed = {
        name: {*parameters(node), "Verbose", "ErrorAction"} for name, node in defined.items()
    }
    documented = [code for name in EXPORTED for code in examples(defined[name])]
    called = set()
    for code in [*documented, *SNIPPETS.values(), source(MODULE), source(REQUESTS)]:
        for command in find(parse(code), "command"):
            name = name_of(command)
            if name in allowed:
                called.add(name)
                used = find(command, "command_parameter")
                assert {text(node).removeprefix("-") for node in used} <= allowed[name], code
    assert called == set(defined)


@pytest.mark.parametrize("name", module())
def test_no_variable_is_misspelt(name: str) -> None:
    function = module()[name]
    known = {*parameters(function), *AUTOMATIC_VARIABLES}
    for assignment in find(function, "left_assignment_expression"):
        known |= variables(assignment)
    for loop in find(function, "foreach_statement"):
        known.add(text(next(find(loop, "variable"))).removeprefix("$"))
    assert variables(function) <= known
