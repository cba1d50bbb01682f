"""Runs the built-in model in a separate process, and restarts it whenever it ends."""

import asyncio
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from time import monotonic

from core.settings.environment import SettingsError

FIRST_DELAY_S = 1
MAX_DELAY_S = 60
"""The longest delay before a restart; each failure in a row doubles the delay."""
HEALTHY_S = 60
"""After running for this long, its next failure is the first in a row again."""
START_S = 120
"""How long loading the model may take."""
END_S = 0.5
"""How long it may take to end before it is killed: `docker stop` allows 10 s for everything."""

_logger = logging.getLogger(__name__)


class BuiltInModel:
    """The process, and the task that watches it."""

    def __init__(self) -> None:
        """Choose a port for good: OLLAMA_BASE_URL names it for as long as this runs."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start it, and return once it answers.

        Raises:
            SettingsError: it did not start; its own last line on standard error says why.
        """
        if not await self._launch():
            raise SettingsError("The built-in model did not start")
        self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """End it, and return once it has ended."""
        if self._watcher:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
        if self._process and self._process.returncode is None:
            with suppress(ProcessLookupError):  # it may have ended by itself just now
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), END_S)
            except TimeoutError:
                with suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()

    async def _launch(self) -> bool:
        """Start a process; return whether it listens."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "core.engine"),
            *("--port", str(self._port), "--parent", str(os.getpid())),
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout
        with suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                return bool(await self._process.stdout.readline())  # its URL
        self._process.kill()
        return False

    async def _watch(self) -> None:
        delay_s = FIRST_DELAY_S
        while True:
            assert self._process
            started_at = monotonic()
            status = await self._process.wait()
            if monotonic() - started_at > HEALTHY_S:
                delay_s = FIRST_DELAY_S
            _logger.error(
                "The built-in model ended (%s); starting it again in %s s", _reason(status), delay_s
            )
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, MAX_DELAY_S)
            try:
                if await self._launch():
                    _logger.warning("The built-in model answers again")
            except OSError as error:  # no memory or no descriptor for a process
                _logger.error("The built-in model cannot be started: %s", error.strerror)


def _reason(status: int) -> str:
    return f"exit status {status}" if status >= 0 else signal.strsignal(-status) or f"{-status}"
