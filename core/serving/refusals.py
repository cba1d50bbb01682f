"""Answers connections whose bytes are not an acceptable request, and logs the refusal."""

from time import time

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from core.context import Record
from core.contract.dialects import dialect_of
from core.contract.errors import ApiError
from core.gate.browsers import HEADERS
from core.observe import logs
from core.serving.cycle import header_lines
from core.settings.networks import parse_address

REFUSED_S = 1
"""How long a refused connection is still read: closing it earlier could lose the answer."""


def last_answer(error: ApiError, target: bytes) -> bytes:
    """Return `error` as an answer after which the connection closes.

    `target` is the request's, as far as it has been read.
    """
    response = dialect_of(target.decode("latin-1")).response(error, "")
    response.headers.update({**HEADERS, "connection": "close"})
    head = STATUS_LINE[response.status_code] + header_lines(response.raw_headers)
    return head + b"\r\n" + bytes(response.body)


def log_refusal(error: ApiError, host: str, *, is_proxy: bool) -> None:
    """Log a refusal; a trusted proxy is not its cause, and the proxy's client is unknown."""
    logs.log_requests(
        Record(
            request_id="",
            method="",
            path="",
            started_at=0,
            ended_at=time(),
            address="" if is_proxy else str(parse_address(host)),
            status=error.status,
            error=type(error),
        )
    )
