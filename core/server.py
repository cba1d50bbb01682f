"""uvicorn, set up for this API's clients, with an end on which nothing is cut without a word."""

import asyncio
import gc
import logging
import signal
import socket
import ssl
from time import monotonic
from types import FrameType

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from core import logs
from core.app import Application
from core.environment import SettingsError
from core.errors import ApiError, BadRequest, HeadTimeout, HeadTooLarge
from core.security import HEADERS
from core.settings import Settings

KEEP_ALIVE_S = 125
"""Windows PowerShell 5.1 uses a connection again for 100 s; uvicorn's 5 s would race it."""
HEAD_TIMEOUT_S = 20
MAX_HEAD_BYTES = 64 * 1024
WRITE_TIMEOUT_S = 60
"""How long a client may take nothing of its answer, before Linux ends its connection."""
BACKLOG = 2048
GC_THRESHOLD = 20_000
"""Objects between two looks for garbage; Python's 700 come together in two requests."""

_logger = logging.getLogger(__name__)


class Protocol(HttpToolsProtocol):
    """uvicorn's protocol, refusing what is no HTTP in the one shape that errors have here.

    uvicorn waits without end for a request's head, and takes one of any size; this does not.
    """

    __slots__ = ("_head_size", "_head_timer", "_in_head", "_refused")
    # CPython packs 30 attributes of an object: a few more would double what a connection takes.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            transport.get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, WRITE_TIMEOUT_S * 1000
            )
        self._head_timer: asyncio.TimerHandle | None = None
        self._in_head = self._refused = False
        self._head_size = 0
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the wait."""
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, and wait for the rest of a head that is not complete."""
        if self._refused:
            return
        self._head_size += len(data)
        super().data_received(data)
        if not self._in_head:
            self._keep_alive_timer_again()
        elif self._head_size > MAX_HEAD_BYTES:
            self._refuse(HeadTooLarge(f"The request's head is over {MAX_HEAD_BYTES} bytes"))
        elif self._is_idle():
            self._start_head_timer()

    def on_message_begin(self) -> None:
        """Take note of a head."""
        super().on_message_begin()
        self._in_head = True

    def on_headers_complete(self) -> None:
        """Start the request, unless the one before it has no answer yet.

        Of two at once uvicorn would not notice when their client leaves. Who sends the second so
        early asks it again when the connection is closed behind the first answer (RFC 9112, 9.3.2).
        """
        if not self._is_idle():
            raise BadRequest("The request before this one is not answered yet")
        self._stop_head_timer()
        self._end_head()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        self._end_head()
        super().on_body(body)

    def on_chunk_header(self) -> None:
        """Take what may follow for trailers: uvicorn would keep any number of them."""
        self._in_head = True
        self._head_size = 0
        self.headers = []

    def on_chunk_complete(self) -> None:
        """Take note of the end of trailers."""
        self._end_head()

    def on_response_complete(self) -> None:
        """Begin to wait for the rest of a head that came during the answer."""
        super().on_response_complete()
        if self._in_head and self._is_idle():
            self._start_head_timer()

    def send_400_response(self, msg: str) -> None:
        """Answer with `msg` and close the connection."""
        self._refuse(BadRequest(msg))

    def _is_idle(self) -> bool:
        return not self.cycle or self.cycle.response_complete

    def _end_head(self) -> None:
        self._in_head = False
        self._head_size = 0

    def _start_head_timer(self) -> None:
        if not self._head_timer:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._give_up)

    def _stop_head_timer(self) -> None:
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None

    def _keep_alive_timer_again(self) -> None:
        """Start uvicorn's, which it stops for whatever comes between two requests."""
        if self.cycle and self.cycle.response_complete and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _give_up(self) -> None:
        if self._in_head:
            self._refuse(HeadTimeout(f"No complete request within {HEAD_TIMEOUT_S} seconds"))
        else:
            self.transport.close()

    def _refuse(self, error: ApiError) -> None:
        """Take nothing more; answer with `error`, unless an answer to what came before is due."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        if not self._is_idle() and (self.cycle.response_started or not self.cycle.more_body):
            self.cycle.keep_alive = False
            return
        response = error.response()
        response.headers.update({**HEADERS, "connection": "close"})
        head = b"".join(b"%b: %b\r\n" % header for header in response.raw_headers)
        self.transport.write(STATUS_LINE[response.status_code] + head + b"\r\n" + response.body)
        self.transport.close()


class DrainMiddleware:
    """Counts the requests that run; once `draining`, `ExchangeMiddleware` refuses new ones."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.running = 0
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope["state"]["draining"] = self.draining
        self.running += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.running -= 1


class Server(uvicorn.Server):
    """On SIGTERM, lets what runs end for SHUTDOWN_GRACE_S, while new requests get a 503.

    What still runs then is cancelled, and `ExchangeMiddleware` gives its stream an error as its
    last line. A second signal ends the wait. SIGHUP reads keys and certificates again.
    """

    def __init__(self, app: Application, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._drain = DrainMiddleware(app)
        self._exit_at = float("inf")
        super().__init__(
            uvicorn.Config(
                self._drain,
                http=Protocol,
                ssl_certfile=settings.ssl_certfile or None,
                ssl_keyfile=settings.ssl_keyfile or None,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=1,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.reload)
        await super().startup(sockets)
        gc.set_threshold(GC_THRESHOLD)
        gc.freeze()  # what is there now stays: looking through it took a tenth of a plain chat

    def reload(self) -> None:
        """Read the API keys and the certificate again; a connection keeps what it has."""
        self._app.reload()
        if self.config.ssl and self._settings.ssl_certfile:
            keyfile = self._settings.ssl_keyfile or None
            try:
                # First where nothing is lost: a key that does not fit would stay half loaded.
                for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.config.ssl):
                    context.load_cert_chain(self._settings.ssl_certfile, keyfile)
            except OSError as error:
                _logger.error("The certificate cannot be read, the old one is kept: %s", error)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the end at the first signal, and hasten it at the second."""
        if self._drain.draining:
            super().handle_exit(sig, frame)
        else:
            self._drain.draining = True
            self._exit_at = monotonic() + self._settings.shutdown_grace_s
            self._captured_signals.append(sig)

    async def on_tick(self, counter: int) -> bool:
        """Tell whether it is time to end."""
        if self._drain.draining:
            if monotonic() >= self._exit_at:
                self._exit_at = float("inf")
                for task in self.server_state.tasks:
                    task.cancel()
            self.should_exit |= not self._drain.running
        return await super().on_tick(counter)


def serve(app: Application, settings: Settings) -> None:
    """Serve `app` on PORT and WEB_PORT until a signal ends it.

    Raises:
        SettingsError: a port is not free, or the certificate cannot be read.
    """
    logs.configure(settings)
    server = Server(app, settings)
    try:
        server.config.load()
    except OSError:  # ssl.SSLError is one too
        raise SettingsError(
            "SSL_CERTFILE or SSL_KEYFILE is unusable: expected the path of a readable PEM file"
        ) from None
    sockets = [_listen("PORT", settings.host, settings.port)]
    if settings.web_port:
        sockets.append(_listen("WEB_PORT", settings.host, settings.web_port))
    scheme = "https" if server.config.is_ssl else "http"
    for name, sock in zip(("the API", "the chat page"), sockets, strict=False):
        _logger.info("Listening for %s on %s://%s", name, scheme, _address(sock))
    server.run(sockets)


def _listen(name: str, host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server(
            (host, port),
            family=family,
            backlog=BACKLOG,
            dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        raise SettingsError(f"HOST or {name} is unusable: {error.strerror}") from None


def _address(sock: socket.socket) -> str:
    """Return what to type into a browser on this machine."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
