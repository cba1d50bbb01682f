"""Packs the endpoints for AWS Lambda: `python deploy/package.py` writes build/NAME.zip for each.

uv, which must be installed, fetches the wheels for the functions' platform, and the Python that
compiles them: compiling would take half of a cold start. A zip contains what its function imports,
which importing it here reveals. The same sources give the same bytes.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath
from shutil import copytree, ignore_patterns
from tempfile import TemporaryDirectory
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

ROOT = Path(__file__).resolve().parents[1]
TASK_ROOT = "/var/task"
"""Where Lambda unpacks a zip; tracebacks show it."""

PACKAGES = (
    "anyio",
    "certifi",
    "deprecated",
    "httptools",
    "httpx",  # without httpcore, which core/ollama/pool.py replaces
    "idna",
    "limits",
    "mangum",
    "msgspec",
    "packaging",
    "pyjwt",  # without cryptography, which HS256 does not need and which is too large
    "redis",
    "starlette",
    "typing-extensions",
    "uvicorn",
    "wrapt",
)
UVICORN = (
    "core.serving.web_adapter",
    "uvicorn.server",
    "uvicorn.lifespan.on",
    "uvicorn.loops.asyncio",
    "uvicorn.protocols.http.httptools_impl",
)
"""What run.sh starts, and the modules that it loads by name."""
ON_DEMAND = ("core.chat.schema",)
"""What a chat imports with the first format."""
SHARED_STORE = ("core.gate.redis_hits", "core.chat.leases")
"""What a RATE_LIMIT_STORAGE in Redis or Valkey needs."""
FUNCTIONS = {
    **dict.fromkeys(("health", "models", "v1_models"), ()),
    **dict.fromkeys(("chat", "chat_stream"), (*UVICORN, *ON_DEMAND)),
    **dict.fromkeys(("v1_chat_completions", "v1_completions", "v1_embeddings"), UVICORN),
    **dict.fromkeys(("v1_responses", "v1_messages"), UVICORN),
}
"""Every function, with what run.sh starts in place of Mangum and what it imports later."""

_TRACE = """
import importlib, sys, types
folder, *modules = sys.argv[1:]
sys.path.insert(0, folder)
sys.modules["httpx._main"] = None  # command lines, which would import click
sys.modules["uvicorn.main"] = types.SimpleNamespace(Server=None, main=None, run=None)
for module in modules:
    importlib.import_module(module)
for module in list(sys.modules.values()):
    if (getattr(module, "__file__", None) or "").startswith(folder):
        print(module.__file__[len(folder) + 1:])
"""


def main() -> None:
    """Pack every function."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--platform", default="aarch64-manylinux2014", help="as uv names it")
    parser.add_argument("--python", default="3.13", help="its version")
    parser.add_argument("--output", type=Path, default=ROOT / "build", help="folder for the zips")
    parser.add_argument("--jwt", action="store_true", help="pack what JWT_SECRET needs, too")
    parser.add_argument(
        "--redis", action="store_true", help="pack what a RATE_LIMIT_STORAGE in Redis needs, too"
    )
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    lazy = ("certifi", "core.keys.secret", *(["jwt"] if arguments.jwt else []))
    lazy += SHARED_STORE if arguments.redis else ()
    with TemporaryDirectory() as folder:
        here, there = Path(folder, "here"), Path(folder, "there")
        install(here, arguments.python)
        install(there, arguments.python, "--python-platform", arguments.platform)
        compile_all(there, arguments.python)
        for function, starter in FUNCTIONS.items():
            modules = (f"handlers.{function}", *lazy, *starter)
            files = select(there, trace(here, arguments.python, modules))
            archive = arguments.output / f"{function}.zip"
            with ZipFile(archive, "w") as zip_file:
                for file in files:
                    add(zip_file, there / file, file.as_posix(), 0o644)
                if starter:
                    add(zip_file, ROOT / "deploy/run.sh", "run.sh", 0o755)
            sys.stdout.write(f"{archive}: {archive.stat().st_size / 2**20:.2f} MiB\n")


def install(folder: Path, python: str, *options: str) -> None:
    """Install the packages, as the lock file pins them, and this project into `folder`."""
    lock = (ROOT / "requirements.txt").read_text("utf-8")
    entries = re.split(r"\n(?=\S)", lock)
    uv(
        *("pip", "install", "--target", str(folder), "--python-version", python, *options),
        *("--only-binary", ":all:", "--no-deps", "--require-hashes", "--requirements", "-"),
        stdin="\n".join(entry for entry in entries if entry.partition("==")[0] in PACKAGES),
    )
    for own in ("core", "handlers"):
        copytree(ROOT / own, folder / own, ignore=ignore_patterns("__pycache__"))


def compile_all(folder: Path, python: str) -> None:
    """Add bytecode to every source in `folder`, for use without checking the source."""
    run_python(
        python,
        *("-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"),
        *("-s", str(folder), "-p", TASK_ROOT, str(folder)),
    )


def trace(folder: Path, python: str, modules: tuple[str, ...]) -> set[PurePosixPath]:
    """Import `modules` from `folder`; return which of its modules that loads."""
    files = run_python(python, "-ISBc", _TRACE, str(folder), *modules)
    return {module_of(PurePosixPath(file)) for file in files.splitlines()}


def select(folder: Path, modules: set[PurePosixPath]) -> list[PurePosixPath]:
    """Return the files in `folder` that `modules` need."""
    files = sorted(PurePosixPath(file.relative_to(folder)) for file in folder.rglob("*.*"))
    return [
        file
        for file in files
        if (file.suffix in {".py", ".pyc", ".so"} and module_of(file) in modules)
        or file.suffix == ".pem"
    ]


def module_of(file: PurePosixPath) -> PurePosixPath:
    """Return the path of the module that `file` is the source, bytecode or binary of."""
    folder = file.parent.parent if file.parent.name == "__pycache__" else file.parent
    return folder / file.name.partition(".")[0]


def add(archive: ZipFile, file: Path, name: str, mode: int) -> None:
    """Add `file` to `archive`, without its date, which would change the bytes."""
    entry = ZipInfo(name)
    entry.create_system = 3  # Unix, wherever this runs: Lambda would not see the mode otherwise
    entry.external_attr = (0o100000 | mode) << 16
    archive.writestr(entry, file.read_bytes(), ZIP_DEFLATED, 9)


def run_python(version: str, *arguments: str) -> str:
    """Run Python `version`, which uv finds or fetches, and return what it prints."""
    return uv("run", "--no-project", "--python", version, "python", *arguments)


def uv(*arguments: str, stdin: str = "") -> str:
    """Run uv, and return its output; its error messages go to the terminal."""
    command = ["uv", "--quiet", *arguments]
    try:
        return subprocess.run(  # noqa: S603
            command, input=stdin, stdout=subprocess.PIPE, text=True, check=True
        ).stdout
    except FileNotFoundError:
        sys.exit("uv is not installed. Install it with: pipx install uv, or pip install uv")
    except subprocess.CalledProcessError as error:
        sys.exit(f"uv failed with exit code {error.returncode}; its message is above")


if __name__ == "__main__":
    main()
