"""Lets Playwright drive Debian's Firefox instead of its own build.

Playwright speaks WebDriver BiDi to Firefox (channel "moz-firefox"), but always sends one command
that Firefox 153 does not know. This script starts Firefox with the arguments it was given, answers
that command itself and passes everything else on.
"""

import asyncio
import json
import re
import shutil
import sys
from collections.abc import AsyncIterable

from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection, serve

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
MISSING = "emulation.setMediaFeaturesOverride"
"""Used by `color_scheme` and the like; Firefox gets those as preferences instead."""


async def _relay(source: AsyncIterable[str | bytes], to: Connection, back: Connection) -> None:
    async for message in source:
        command = json.loads(message)
        if command.get("method") == MISSING:
            answer = {"type": "success", "id": command["id"], "result": {}}
            await back.send(json.dumps(answer))
        else:
            await to.send(message)
    await to.close()


async def _main() -> int:
    assert FIREFOX
    process = await asyncio.create_subprocess_exec(
        FIREFOX, *sys.argv[1:], stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr
    async for line in process.stderr:
        listening = re.search(r"WebDriver BiDi listening on (ws://\S+)", line.decode())
        if not listening:
            continue

        async def passed_on(playwright: ServerConnection, url: str = listening[1]) -> None:
            assert playwright.request
            async with connect(url + playwright.request.path, max_size=None) as firefox:
                await asyncio.gather(
                    _relay(playwright, firefox, playwright),
                    _relay(firefox, playwright, firefox),
                )

        server = await serve(passed_on, "127.0.0.1", 0, max_size=None)
        port = next(iter(server.sockets)).getsockname()[1]
        sys.stderr.write(f"WebDriver BiDi listening on ws://127.0.0.1:{port}\n")
        sys.stderr.flush()
    return await process.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(_main()))
