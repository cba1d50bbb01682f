"""Reads a request's head: what it asks for, and why its body cannot be read."""

import re
import urllib.parse
from functools import lru_cache

import httptools
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from core.context import fields_of
from core.contract.errors import ApiError, CodingNotSupported

_ASGI = {"version": "3.0", "spec_version": "2.3"}
_ORDINARY = re.compile(rb"(?:/[\w.-]+)+/?|/")
_SHORT_TARGET = 1024


def scope_of(protocol: HttpToolsProtocol) -> Scope:
    """Return the scope of the request that `protocol` has parsed the head of.

    Raises:
        httptools.HttpParserInvalidURLError: its target is malformed.
    """
    path, raw_path, query = parsed(protocol.url)
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": protocol.parser.get_http_version(),
        "server": protocol.server,
        "client": protocol.client,
        "scheme": protocol.scheme,
        "method": protocol.parser.get_method().decode("ascii"),
        "root_path": protocol.root_path,
        "path": path,
        "raw_path": raw_path,
        "query_string": query,
        "headers": protocol.headers,
        "state": protocol.app_state.copy(),
        "flow": protocol.flow,
    }


def parsed(target: bytes) -> tuple[str, bytes, bytes]:
    """Return a target's path, which is decoded, its raw path and its query.

    Raises:
        httptools.HttpParserInvalidURLError: the target is malformed.
    """
    if len(target) <= _SHORT_TARGET and b"?" not in target and (path := _plain(target)):
        return path, target, b""
    url = httptools.parse_url(target)
    path = url.path.decode("ascii")
    if "%" in path:
        # Decoded, %2f would be a separator, and another endpoint's path.
        path = path.lower() if "%2f" in path.lower() else urllib.parse.unquote(path)
    return path, url.path, url.query or b""


@lru_cache(maxsize=64)
def _plain(target: bytes) -> str:
    """Return the path that a target is, if it is just a path without escapes; else ""."""
    return target.decode("ascii") if _ORDINARY.fullmatch(target) else ""


def objection(scope: Scope) -> ApiError | None:
    """Return why the request in `scope` cannot be read, if it cannot."""
    if b"transfer-encoding" in fields_of(scope) and [
        value.strip().lower() for name, value in scope["headers"] if name == b"transfer-encoding"
    ] != [b"chunked"]:
        return CodingNotSupported("Transfer-Encoding may only be chunked. Send the body unencoded")
    return None


def framing(scope: Scope) -> bytes:
    """Return the line of a head that says where the body ends; nothing if there is no body."""
    fields = fields_of(scope)
    for name in (b"transfer-encoding", b"content-length"):
        if name in fields:
            return b"%b: %b\r\n" % (name, fields[name])
    return b""
