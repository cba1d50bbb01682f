"""The scripts that users get, and the snippets in the documents."""

import re
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[3]
CLIENTS = _ROOT / "deploy/clients"
SCRIPTS = sorted(path for path in CLIENTS.rglob("*.ps*") if path.is_file())
PAGES = [_ROOT / "README.md", _ROOT / "README.ko.md", *sorted(CLIENTS.rglob("*.md"))]
_BLOCK = re.compile(r"^```(?:powershell|ps1|pwsh)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def source(path: Path) -> str:
    """Return the text of a script, without its BOM."""
    return path.read_text(encoding="utf-8-sig")


SNIPPETS = {
    f"{page.name}-{number}": block
    for page in PAGES
    for number, block in enumerate(_BLOCK.findall(page.read_text(encoding="utf-8")), start=1)
}
"""The pages' blocks of PowerShell."""
CALLING = {
    name: text
    for name, text in {**{path.name: source(path) for path in SCRIPTS}, **SNIPPETS}.items()
    if "Invoke-RestMethod " in text
}
"""The scripts and snippets that call the server themselves."""
