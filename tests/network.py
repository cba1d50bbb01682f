"""Keeps this machine's network as it is while a browser runs.

Chromium cancels its requests with ERR_NETWORK_CHANGED when an interface appears or goes, so a page
that is just loading never starts. Other processes of the suite may run either at the same time.
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_FOLDER = Path(tempfile.gettempdir())
_INTERFACES = Path("/sys/class/net")
_ADDRESSES = Path("/proc/net/if_inet6")
_TENTATIVE = 0x40
"""The flag of an address that the kernel still tries (linux/if_addr.h)."""
_SETTLED_S = 5


@contextmanager
def unchanged() -> Iterator[None]:
    """Let nobody change the network meanwhile."""
    with ExitStack() as stack:
        with _locked("turn", fcntl.LOCK_EX):  # behind those who wait to change it
            stack.enter_context(_locked("state", fcntl.LOCK_SH))
        yield


@contextmanager
def changing() -> Iterator[None]:
    """Wait until no browser runs; let none run before the change is complete."""
    with _locked("turn", fcntl.LOCK_EX), _locked("state", fcntl.LOCK_EX):
        before = _interfaces()
        try:
            yield
        finally:
            _settle(before)


def _settle(before: set[str]) -> None:
    """Wait for the IPv6 addresses of new interfaces: they appear a second or two later."""
    end = time.monotonic() + _SETTLED_S
    with suppress(FileNotFoundError):  # there is no IPv6
        while _interfaces() - before - _with_address() and time.monotonic() < end:
            time.sleep(0.05)


def _interfaces() -> set[str]:
    """Return the names of the interfaces that are connected."""
    return {folder.name for folder in _INTERFACES.iterdir() if _has_carrier(folder)}


def _has_carrier(interface: Path) -> bool:
    with suppress(OSError):  # it is down, or gone
        return (interface / "carrier").read_text("ascii") == "1\n"
    return False


def _with_address() -> set[str]:
    """Return the names of the interfaces whose IPv6 address is there to stay."""
    lines = [line.split() for line in _ADDRESSES.read_text("ascii").splitlines()]
    return {line[5] for line in lines if not int(line[4], 16) & _TENTATIVE}


@contextmanager
def _locked(name: str, kind: int) -> Iterator[None]:
    with (_FOLDER / f"owa-network-{os.getuid()}-{name}.lock").open("a") as file:
        fcntl.flock(file, kind)  # until it is closed
        yield
