"""A network namespace that stands for another machine, whose cable a test can pull."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.network import changing
from tests.processes import running
from tests.programs import program


def _ip(*arguments: str, check: bool = True) -> None:
    command = [program("ip", "apt install iproute2"), *arguments]
    subprocess.run(command, check=check, capture_output=True)


class Machine:
    """A namespace with a cable to this one."""

    def __init__(self, name: str, subnet: str) -> None:
        self.name = name
        self.address = f"{subnet}.2"
        self._nft = program("nft", "apt install nftables")

    def unplug(self) -> None:
        """Drop every packet silently, as when power or a cable fails."""
        for rule in (
            "add table inet cable",
            "add chain inet cable in { type filter hook input priority 0; policy drop; }",
            "add chain inet cable out { type filter hook output priority 0; policy drop; }",
        ):
            self._run(self._nft, rule)

    def plug_in(self) -> None:
        self._run(self._nft, "delete table inet cable")

    def _run(self, *command: str) -> None:
        _ip("netns", "exec", self.name, *command)


@contextmanager
def machine() -> Iterator[Machine]:
    """Make a namespace, or skip the test where that is not allowed."""
    number = os.getpid() % 250
    name, subnet = f"owa-{os.getpid()}", f"10.213.{number}"
    with changing():
        try:
            _ip("netns", "add", name)
            peer = ("type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "add", f"owa{number}", *peer)
        except subprocess.CalledProcessError as error:
            _ip("netns", "del", name, check=False)
            pytest.skip(f"no network namespace can be made here: {error.stderr.decode().strip()}")
        _ip("addr", "add", f"{subnet}.1/24", "dev", f"owa{number}")
        _ip("link", "set", f"owa{number}", "up")
        _ip("-n", name, "addr", "add", f"{subnet}.2/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", name, "link", "set", device, "up")
    try:
        yield Machine(name, subnet)
    finally:
        with changing():
            _ip("link", "del", f"owa{number}")  # or it would go some time after its namespace
            _ip("netns", "del", name)


@contextmanager
def fake_ollama_on(host: Machine, *arguments: str) -> Iterator[str]:
    """Run the fake Ollama on `host`; yield its URL."""
    # It becomes the fake, so that ending it by its id ends the fake.
    enter = "import os, sys; os.execvp('ip', ['ip', 'netns', 'exec', *sys.argv[1:]])"
    fake = (host.name, sys.executable, "-m", "tests.fake_ollama", "--host", host.address)
    with running("-c", enter, *fake, *arguments) as process:
        assert process.stdout
        yield process.stdout.readline().strip()
