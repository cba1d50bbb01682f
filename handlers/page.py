"""GET /: the chat page, and its files under a path that changes with their content."""

import gzip
from functools import lru_cache
from hashlib import sha256
from html import escape
from pathlib import Path
from string import Template

from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from core.contract.errors import ApiError
from core.ollama.client import ollama_client
from core.ollama.default import PREFERRED

_DIRECTORY = Path(__file__).with_name("static")
_FILES = StaticFiles(directory=_DIRECTORY)
_PAGE = Template((_DIRECTORY / "index.html").read_text("utf-8"))


def _digest() -> str:
    """Return a digest that changes whenever a file or its name does."""
    digest = sha256()
    for path in sorted(path for path in _DIRECTORY.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(_DIRECTORY).as_posix()}\0".encode())
        digest.update(sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


STATIC_PATH = f"/static/{_digest()}"
"""The path of this version of the files; a browser never requests the same one twice."""

HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types dompurify"
    ),
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-dns-prefetch-control": "off",
}
"""Only these files are loaded or run; links in an answer do not even cause a DNS lookup."""


async def page(request: Request) -> Response:
    """Answer with the page; it has no secrets, so anyone who can reach this server may load it."""
    try:
        model = await ollama_client(request.app.state).default.name(lambda _: True)
    except ApiError:
        model = PREFERRED
    html = _PAGE.substitute(static=STATIC_PATH, default_model=escape(model))
    return HTMLResponse(html, headers=HEADERS)


async def static(request: Request) -> Response:
    """Answer with a file that may be cached forever."""
    response = await _FILES.get_response(request.path_params["file"], request.scope)
    response.headers["cache-control"] = "public, max-age=31536000, immutable"
    response.headers["vary"] = "Accept-Encoding"
    wants_gzip = "gzip" in request.headers.get("accept-encoding", "")
    if not isinstance(response, FileResponse) or not wants_gzip or "range" in request.headers:
        return response
    del response.headers["content-length"]
    response.headers["content-encoding"] = "gzip"
    return Response(_compressed(Path(response.path)), headers=response.headers)


@lru_cache(maxsize=256)
def _compressed(path: Path) -> bytes:
    return gzip.compress(path.read_bytes(), mtime=0)


routes = [
    Route("/", page, middleware=[Middleware(GZipMiddleware)]),
    Route(f"{STATIC_PATH}/{{file:path}}", static),
]
