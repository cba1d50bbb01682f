"""uvicorn, configured for this API's clients, with a graceful shutdown."""

import asyncio
import gc
import logging
import os
import signal
import socket
import ssl
from functools import partial
from time import monotonic
from types import FrameType

import uvicorn

from core.observe import logs
from core.serving.application import Application
from core.serving.built_in import BuiltInModel
from core.serving.connections import Connections, raise_file_limit
from core.serving.notify import Notifier
from core.serving.protocol import STRANGER_KEEP_ALIVE_S, Protocol
from core.settings.certificates import load_own
from core.settings.environment import SettingsError
from core.settings.schema import Settings

BACKLOG = 2048
GC_THRESHOLD = 20_000
"""Allocations between garbage collections; two requests reach Python's default of 700."""

LAST_WORDS_S = 1
"""How long cancelled requests may take to send their errors."""

_TICKS_PER_S = 10  # uvicorn's

_logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """Stops gracefully and reloads without a restart.

    On SIGTERM, requests in progress have SHUTDOWN_GRACE_S to finish, while new ones get a 503.
    The rest are then cancelled, and `ExchangeMiddleware` ends their streams with an error line. A
    second signal ends the wait. SIGHUP reloads keys and certificates.
    """

    def __init__(
        self, app: Application, settings: Settings, model: BuiltInModel | None = None
    ) -> None:
        """Run `model` for as long as this serves."""
        self._app = app
        self._model = model
        self._settings = settings
        self._exit_at = float("inf")
        self._systemd = Notifier(os.environ)
        self._is_full = False
        self.ended_by: signal.Signals | None = None
        """The first signal that told it to stop."""
        super().__init__(configuration(app, settings))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start serving.

        Raises:
            SettingsError: the settings are invalid, or the built-in model is wanted and did not
                start.
        """
        # Without a coroutine that only awaits another, each open stream takes 270 bytes less.
        self.config.loaded_app = self._app.assembled
        if self._model:
            await self._model.start()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.reload)
        await super().startup(sockets)
        gc.set_threshold(GC_THRESHOLD)
        gc.freeze()  # all of this is permanent: scanning it took a tenth of a plain chat's time
        if self.started:
            scheme = "https" if self.config.is_ssl else "http"
            for name, sock in zip(("the API", "the chat page"), sockets or [], strict=False):
                _logger.info("Listening for %s on %s://%s", name, scheme, _address(sock))
            self._systemd.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop serving, then end the built-in model."""
        await super().shutdown(sockets)
        if self._model:
            await self._model.stop()

    def reload(self) -> None:
        """Reload the API keys and the certificate; open connections keep the old one."""
        self._app.reload()
        if self.config.ssl and self._settings.ssl_certfile:
            try:
                # Try it on a scratch context first: a mismatched pair would stay half loaded.
                for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.config.ssl):
                    load_own(context, self._settings)
            except SettingsError as error:
                _logger.error("The certificate cannot be loaded, keeping the old one: %s", error)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to shut down on the first signal, and exit immediately on the second."""
        if self.ended_by:
            super().handle_exit(sig, frame)
            self._captured_signals.clear()  # uvicorn would raise them in the event loop
        else:
            if self.started:  # else the application may just be being assembled
                self._app.recorder.draining = True
            self._exit_at = monotonic() + self._settings.shutdown_grace_s
            self.ended_by = signal.Signals(sig)
            self._systemd.stopping()

    async def on_tick(self, counter: int) -> bool:
        """Return whether it is time to exit; once a second, check that clients can connect."""
        self._systemd.alive()
        if counter % _TICKS_PER_S == 0:
            self._check_descriptors()
        if self.ended_by:
            self._app.recorder.draining = True
            if monotonic() >= self._exit_at:
                for task in self.server_state.tasks:
                    task.cancel()
                self.should_exit = True  # uvicorn waits briefly for their errors
            self.should_exit |= not self._app.recorder.in_flight
        return await super().on_tick(counter)

    def _check_descriptors(self) -> None:
        """Log when none are left, and when there are some again: accepting fails silently."""
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            if not self._is_full:
                _logger.error(
                    "New clients are turned away: %s. Raise the limit (ulimit -n)", error.strerror
                )
            self._is_full = True
        else:
            if self._is_full:
                _logger.warning("New clients can connect again")
            self._is_full = False


def configuration(app: Application, settings: Settings) -> uvicorn.Config:
    """Return uvicorn's configuration for `app`; for one server only, as it counts connections."""
    return uvicorn.Config(
        app,
        http=partial(Protocol, limits=Connections(settings)),  # type: ignore[arg-type] # is called
        ssl_certfile=settings.ssl_certfile or None,
        ssl_keyfile=settings.ssl_keyfile or None,
        timeout_keep_alive=STRANGER_KEEP_ALIVE_S,
        timeout_graceful_shutdown=LAST_WORDS_S,
        ws="none",  # also where a package for it is installed
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )


def check(settings: Settings) -> None:
    """Load the certificate, and try to listen on HOST; PORT and WEB_PORT may be in use.

    Raises:
        SettingsError: `serve` could not use them.
    """
    if settings.ssl_certfile:  # uvicorn has no words for what may be wrong
        load_own(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), settings)
    if settings.port == settings.web_port != 0:
        raise SettingsError("PORT and WEB_PORT are the same: expected two ports, or WEB_PORT=0")
    _listen("PORT", settings.host, 0).close()


def serve(app: Application, settings: Settings) -> None:
    """Serve `app` on PORT and WEB_PORT until a signal ends it.

    Raises:
        SettingsError: a port is not free, or the server cannot start with the settings.
    """
    logs.configure(settings)
    raise_file_limit()
    model = None
    if settings.built_in_model:
        model = BuiltInModel()
        # The application has not read these yet. Headers are for a tunnel, which is not used.
        os.environ |= {"OLLAMA_BASE_URL": model.url, "OLLAMA_HEADERS": ""}
    check(settings)
    server = Server(app, settings, model)
    server.config.load()
    sockets = [_listen("PORT", settings.host, settings.port)]
    if settings.web_port:
        sockets.append(_listen("WEB_PORT", settings.host, settings.web_port))
    server.run(sockets)
    logs.flush()
    if server.ended_by:  # so that a shell or a service manager sees what ended it
        signal.signal(server.ended_by, signal.SIG_DFL)
        signal.raise_signal(server.ended_by)


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
        raise SettingsError(f"Cannot listen on HOST and {name}: {error.strerror}") from None


def _address(sock: socket.socket) -> str:
    """Return the address to type into a browser on this machine."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
