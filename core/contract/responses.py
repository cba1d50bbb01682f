"""JSON responses that declare their charset, as PowerShell 5.1 needs in order to read Korean."""

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

PREFERENCE_APPLIED = b"preference-applied"
"""A header of streams whose client asked for heartbeats (RFC 7240)."""

_encode = msgspec.json.Encoder().encode


class JSONResponse(Response):
    """A schema object as JSON in UTF-8, or JSON that is there already."""

    media_type = "application/json; charset=utf-8"

    def render(self, content: Any) -> bytes:
        """Encode `content`, any object that msgspec supports, unless it is bytes."""
        return content if isinstance(content, bytes) else _encode(content)

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """Do what Starlette does, in a third of the time if there are no other `headers`."""
        if headers:
            super().init_headers(headers)
        else:
            self.raw_headers = [
                (b"content-length", b"%d" % len(self.body)),
                (b"content-type", self.media_type.encode()),
            ]
