"""Answers in JSON that name their charset, which PowerShell 5.1 needs to read Korean."""

from typing import Any

import msgspec
from starlette.responses import Response

NDJSON = "application/x-ndjson; charset=utf-8"

_encode = msgspec.json.Encoder().encode


class JSONResponse(Response):
    """A schema object as JSON in UTF-8."""

    media_type = "application/json; charset=utf-8"

    def render(self, content: Any) -> bytes:
        """Encode `content`, which is any object that msgspec knows."""
        return _encode(content)
