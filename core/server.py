"""uvicorn, set up for this API's clients."""

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from core.errors import BadRequest
from core.settings import Settings

KEEP_ALIVE_S = 125
"""Windows PowerShell 5.1 uses a connection again for 100 s; uvicorn's 5 s would race it."""


class JSONErrorProtocol(HttpToolsProtocol):
    """uvicorn's protocol, refusing what is no HTTP in the one shape that errors have here."""

    def send_400_response(self, msg: str) -> None:
        """Answer with `msg` and close the connection."""
        response = BadRequest(msg).response()
        headers = [*response.raw_headers, (b"connection", b"close")]
        head = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[response.status_code] + head + b"\r\n" + response.body)
        self.transport.close()


def serve(app: str, settings: Settings) -> None:
    """Serve the application named by the import string `app` until a signal ends it."""
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        http=JSONErrorProtocol,
        timeout_keep_alive=KEEP_ALIVE_S,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
