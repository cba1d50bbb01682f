"""GET /: the chat page, and its files under a path that changes with their content."""

import gzip
import json
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
_SERVICE_WORKER = (_DIRECTORY / "js/service-worker.js").read_text("utf-8")
_PAGE = Template((_DIRECTORY / "index.html").read_text("utf-8"))


def _digest() -> str:
    """Return a digest that changes whenever a file or its name does."""
    digest = sha256()
    for path in sorted(path for path in _DIRECTORY.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(_DIRECTORY).as_posix()}\0".encode())
        digest.update(sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


STATIC_PATH = f"/static/{_digest()}"
"""The path of this version of the files, which browsers may therefore cache forever."""

_ON_DEMAND = (
    "css/math.css",
    "js/ko-server.js",
    "vendor/highlightjs",
    "vendor/pdfjs",
    "vendor/stix",
    "vendor/temml",
)
_SHELL = sorted(
    f"{STATIC_PATH}/{name}"
    for path in _DIRECTORY.rglob("*")
    if path.suffix in {".css", ".js", ".mjs", ".svg"}
    and not (name := path.relative_to(_DIRECTORY).as_posix()).startswith(_ON_DEMAND)
    and path.name != "service-worker.js"
)
"""The files that the page needs to open."""

_BEFORE_PAINT = ("storage", "words", "en", "ko")
_PRELOAD = "\n".join(
    f'<link rel="modulepreload" href="{path}">'
    for path in sorted(
        (path for path in _SHELL if path.endswith(("js", "mjs"))),
        key=lambda path: Path(path).stem not in _BEFORE_PAINT,
    )
)
"""Lets a browser fetch all modules together, instead of discovering them one by one."""

HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; font-src 'self'; manifest-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types dompurify own-scripts"
    ),
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-dns-prefetch-control": "off",
}
"""Only the page's own files load or run; links in an answer do not even cause a DNS lookup."""


_FILE_HEADERS = {"content-security-policy": "default-src 'none'; connect-src 'self'"}
"""Workers get the policy of their own file: a hostile PDF cannot send data elsewhere."""


async def page(request: Request) -> Response:
    """Answer with the page; it contains no secrets, so anyone may load it."""
    try:
        model = await ollama_client(request.app.state).default.name(lambda _: True)
    except ApiError:
        model = PREFERRED
    html = _PAGE.substitute(static=STATIC_PATH, default_model=escape(model), preload=_PRELOAD)
    return HTMLResponse(html, headers=HEADERS)


async def service_worker(request: Request) -> Response:
    """Answer with the script that opens the page offline; it changes whenever the page does."""
    html = bytes((await page(request)).body)
    values = {
        "VERSION": sha256(html).hexdigest()[:16],
        "STATIC": STATIC_PATH,
        "SHELL": _SHELL,
    }
    head = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in values.items())
    return Response(
        head + _SERVICE_WORKER,
        headers=_FILE_HEADERS | {"cache-control": "no-cache"},
        media_type="text/javascript",
    )


async def static(request: Request) -> Response:
    """Answer with a file that may be cached forever."""
    response = await _FILES.get_response(request.path_params["file"], request.scope)
    response.headers.update(
        _FILE_HEADERS
        | {"cache-control": "public, max-age=31536000, immutable", "vary": "Accept-Encoding"}
    )
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
    Route("/service-worker.js", service_worker, middleware=[Middleware(GZipMiddleware)]),
    Route(f"{STATIC_PATH}/{{file:path}}", static),
]
