"""The example programs of deploy/clients, run as people run them."""

import asyncio
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.programs import ROOT, npm_ci, program

EXAMPLES = ROOT / "deploy/clients"


@dataclass(frozen=True)
class Ended:
    """What a program printed, and its exit status."""

    status: int
    output: str
    errors: str


async def run(
    *command: str | Path, cwd: Path | None = None, limit_s: float = 60, **environ: str
) -> Ended:
    """Run a program to its end, with `environ` added to the environment."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={**os.environ, **environ},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(process.communicate(), limit_s)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, output.decode(), errors.decode())


@dataclass(frozen=True)
class Example:
    """A program that sends the message on its command line."""

    name: str
    command: tuple[str | Path, ...]

    async def run(self, url: str, *messages: str, key: str = "") -> Ended:
        """Run it to its end."""
        return await run(*self.command, *messages, OLLAMA_WEB_API_URL=url, OLLAMA_WEB_API_KEY=key)


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages that the examples for Node import."""
    folder = tmp_path_factory.mktemp("node")
    npm_ci(ROOT / "tests/clients/npm", folder)
    for script in EXAMPLES.glob("*.mjs"):
        shutil.copy(script, folder)
    return folder


@pytest.fixture(params=["curl.sh", "node_axios.mjs", "node_fetch.mjs", "python_httpx.py",
                        "python_requests.py"])  # fmt: skip
def example(request: pytest.FixtureRequest) -> Example:
    name: str = request.param
    if name.endswith(".mjs"):
        folder: Path = request.getfixturevalue("node_folder")
        return Example(name, (program("node", "apt install nodejs"), folder / name))
    if name.endswith(".sh"):
        program("curl", "apt install curl")
        return Example(name, (EXAMPLES / name,))
    return Example(name, (sys.executable, EXAMPLES / name))
