"""A small Debian, made for these tests: a machine that systemd-nspawn boots, and a bare root."""

import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from packaging.markers import Marker

from tests.programs import ROOT, program, started

PACKAGES = "curl dbus procps python3-venv systemd-sysv"
DOCUMENTS = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*")


@dataclass(frozen=True)
class Debian:
    """What mmdebstrap has built."""

    machine: Path
    """A root with systemd and Python."""
    bare: Path
    """A tar archive of the same without either, which is what container images start from."""


@pytest.fixture(scope="session")
def debian() -> Iterator[Debian]:
    if os.getuid() != 0:
        pytest.skip("only root can make and boot a Debian root")
    mmdebstrap = program("mmdebstrap", "apt install mmdebstrap")
    suite = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    sources = [*Path("/etc/apt").glob("sources.list.d/*.sources"), Path("/etc/apt/sources.list")]
    with tempfile.TemporaryDirectory(prefix="debian") as folder:
        debian = Debian(Path(folder, "machine"), Path(folder, "bare.tar"))
        add_packages = (
            "APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -qq --yes --no-install-recommends "
            f'-oDPkg::Chroot-Directory="$1" install {PACKAGES}'
        )
        left_out = " ".join(
            f"--exclude=./{path}/*"
            for path in ("dev", "proc", "sys", "var/cache", "var/lib/apt/lists")
        )
        subprocess.run(
            [
                *(mmdebstrap, "--quiet", "--variant=minbase"),
                *(f"--dpkgopt=path-exclude={path}" for path in DOCUMENTS),
                f'--customize-hook=tar -C "$1" {left_out} -cf {debian.bare} .',
                f"--customize-hook={add_packages}",
                *(suite, debian.machine),
                *(path for path in sources if path.exists()),
            ],
            check=True,
            capture_output=True,
        )
        yield debian


@pytest.fixture(scope="session")
def wheels(debian: Debian, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the locked packages, so that builds here need no network."""
    folder = tmp_path_factory.mktemp("wheels")
    folder.chmod(0o755)
    found = subprocess.run(
        ["chroot", debian.machine, "python3", "--version"], capture_output=True, check=True
    )
    # The machine's Python may differ from the tests', and need other packages.
    version = {"python_full_version": found.stdout.decode().split()[1]}
    locks = [
        ROOT / name
        for name in ("requirements.txt", "core/engine/requirements.txt", "core/engine/libgomp.txt")
    ]
    entries = re.split(r"\n(?=\S)", "\n".join(lock.read_text("utf-8") for lock in locks))
    wanted: list[str] = []
    for entry in entries:
        package, _, hashes = entry.partition(" \\\n")
        package, _, marker = package.partition(" ; ")
        if not marker or Marker(marker).evaluate(version):
            wanted.append(f"{package} \\\n{hashes}")
    (folder / "lock.txt").write_text("\n".join(wanted), "utf-8")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--dest", folder, "--no-deps"),
            *("--require-hashes", "--only-binary=:all:", "--requirement", folder / "lock.txt"),
        ],
        check=True,
        capture_output=True,
    )
    (folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n", "utf-8")
    return folder


@dataclass
class Machine:
    """A Debian root, and its systemd process once it has booted."""

    root: Path
    wheels: Path
    init: int = 0

    @property
    def _nspawn(self) -> list[str | Path]:
        nspawn = program("systemd-nspawn", "apt install systemd-container")
        return [
            *(nspawn, "--quiet", "--directory", self.root, "--register=no", "--keep-unit"),
            *("--private-network", f"--bind-ro={self.wheels}:/wheels"),
            f"--bind-ro={self.wheels}/pip.conf:/etc/pip.conf",
        ]

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command inside, and return its combined output; assert success if `check`."""
        enter: list[str | Path] = [*self._nspawn, "--pipe"]
        if self.init:
            enter = ["nsenter", "--target", str(self.init), "--all", "--root", "--wd"]
        environ = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        done = subprocess.run(
            [*enter, *command],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout
        return done.stdout

    @contextmanager
    def booted(self) -> Iterator[None]:
        """Boot systemd in it."""
        with started([*self._nspawn, "--boot"], {}) as process:
            nspawn = psutil.Process(process.pid)
            deadline = time.monotonic() + 60
            while "running" not in (state := self._state(nspawn)):
                assert process.poll() is None, process.stdout and process.stdout.read()
                assert time.monotonic() < deadline, state
                time.sleep(0.05)
            try:
                yield
            finally:
                self.init = 0

    def _state(self, nspawn: psutil.Process) -> str:
        """Return systemd's own state, once it has started everything."""
        self.init = next((child.pid for child in nspawn.children()), 0)
        if not self.init:
            return ""
        return self.run("systemctl", "is-system-running", "--wait", check=False)
