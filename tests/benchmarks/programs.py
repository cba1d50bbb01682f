"""Starts programs, each on one core, and stops them by process id."""

import os
import resource
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import which
from typing import NamedTuple

import psutil

HERE = Path(__file__).parent
FILES = 16_384
_CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, UPSTREAM_CORE, LOAD_CORE = _CORES[0], _CORES[1 % len(_CORES)], _CORES[-1]


class Missing(Exception):
    """A program the benchmark requires is not installed."""


class Built(NamedTuple):
    """The benchmark's own programs, compiled."""

    upstream: Path
    load: Path


def build(folder: Path) -> Built:
    """Compile the C programs into `folder`.

    Raises:
        Missing: there is no C compiler, or no taskset.
    """
    for tool, package in (("cc", "gcc"), ("taskset", "util-linux")):
        if not which(tool):
            raise Missing(f"{tool} is needed; on Debian: apt install {package}")
    built = Built(folder / "upstream", folder / "load")
    for path in built:
        source = (HERE / path.name).with_suffix(".c")
        subprocess.run(["cc", "-O2", "-o", path, source], check=True)
    return built


def allow_many_files() -> None:
    """Raise the file limit of this process and its children to what the measurements need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(FILES, hard)), hard))


@contextmanager
def running(
    command: list[str], core: int, environ: Mapping[str, str] | None = None, log: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run `command` on `core` until the block ends; output goes to `log`, else to a pipe."""
    with (log or Path(os.devnull)).open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            ["taskset", "--cpu-list", str(core), *command],
            env={**os.environ, **(environ or {})},
            stdin=subprocess.PIPE,
            stdout=errors if log else subprocess.PIPE,
            stderr=errors if log else None,
            text=True,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    tree: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        tree = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)
    for each in tree:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    process.kill()
    process.wait(timeout=10)
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with suppress(BrokenPipeError):
                pipe.close()
