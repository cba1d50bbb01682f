"""Serves UVICORN_APP for AWS' Lambda Web Adapter: `python -m core.serving.web_adapter`.

This is `uvicorn` without its command line, which needs click: an eighth of a function's zip.
"""

import os
import sys
from types import ModuleType

KEEP_ALIVE_S = 900
"""The adapter drops an idle connection after 4 s, by a clock that also runs in a frozen sandbox.

With uvicorn's own 5 s, one side might use a connection that the other has just closed.
"""


def main() -> None:
    """Serve on the adapter's port until a signal arrives; exit with 3 if startup fails."""
    command_line = ModuleType("uvicorn.main")  # the package imports these from it, unused here
    vars(command_line).update(Server=None, main=None, run=None)
    sys.modules["uvicorn.main"] = command_line
    from uvicorn.config import STARTUP_FAILURE, Config  # noqa: PLC0415 - not before
    from uvicorn.server import Server  # noqa: PLC0415

    config = Config(
        os.environ["UVICORN_APP"],
        host="127.0.0.1",
        port=int(os.environ["AWS_LWA_PORT"]),
        timeout_keep_alive=KEEP_ALIVE_S,
        loop="asyncio",
        http="httptools",
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    server = Server(config)
    server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)


if __name__ == "__main__":
    main()
