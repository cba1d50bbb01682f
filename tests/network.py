"""Keeps this machine's network as it is while a browser runs.

Chromium cancels its requests with ERR_NETWORK_CHANGED when an interface appears or goes, so a page
that is just loading never starts. Other processes of the suite may run either at the same time.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_FOLDER = Path(tempfile.gettempdir())


@contextmanager
def unchanged() -> Iterator[None]:
    """Let nobody change the network meanwhile."""
    with ExitStack() as stack:
        with _locked("turn", fcntl.LOCK_EX):  # behind those who wait to change it
            stack.enter_context(_locked("state", fcntl.LOCK_SH))
        yield


@contextmanager
def changing() -> Iterator[None]:
    """Wait until no browser runs."""
    with _locked("turn", fcntl.LOCK_EX), _locked("state", fcntl.LOCK_EX):
        yield


@contextmanager
def _locked(name: str, kind: int) -> Iterator[None]:
    with (_FOLDER / f"owa-network-{os.getuid()}-{name}.lock").open("a") as file:
        fcntl.flock(file, kind)  # until it is closed
        yield
