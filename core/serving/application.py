"""An ASGI application that is assembled on its first request."""

import logging
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import State
from starlette.types import ASGIApp, Receive, Scope, Send

from core.context import Recorder
from core.contract.dialects import dialect_of
from core.contract.errors import InternalError
from core.gate.browsers import SecurityHeadersMiddleware
from core.serving.routes import Shortcut
from core.settings.environment import SettingsError

_logger = logging.getLogger(__name__)


class _State(State):
    """Starlette's, with ordinary attributes and no items: reading one takes a tenth of the time."""

    def __setattr__(self, key: str, value: Any) -> None:
        object.__setattr__(self, key, value)


class BareStarlette(Starlette):
    """Starlette without the error middleware it adds: `ExchangeMiddleware` handles errors."""

    def __init__(self, **starlettes: Any) -> None:
        super().__init__(**starlettes)
        self.state = _State()

    def __call__(  # type: ignore[override]
        self, scope: Scope, receive: Receive, send: Send
    ) -> Awaitable[None]:
        """Do what Starlette does, without a coroutine that only awaits another."""
        scope["app"] = self
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        return self.middleware_stack(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """Return the router wrapped in the given middleware only; `state.recorder` is set."""
        app: ASGIApp = Shortcut(self.router, self.state.recorder)
        for class_, args, kwargs in reversed(self.user_middleware):
            app = class_(app, *args, **kwargs)
        return app


class Application:
    """Serves what `assemble` returns; settings are not read before the first request."""

    def __init__(self, assemble: Callable[[], Starlette]) -> None:
        self._assemble = assemble

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; if the settings are invalid, with a 500 and a log line."""
        try:
            application = self.assembled
        except SettingsError as error:
            await _refuse(error, scope, receive, send)
        else:
            await application(scope, receive, send)

    @property
    def recorder(self) -> Recorder:
        """The recorder, which knows the requests in progress."""
        recorder: Recorder = self.assembled.state.recorder
        return recorder

    def reload(self) -> None:
        """Read the API keys again."""
        self.assembled.state.keys.reload()

    @cached_property
    def assembled(self) -> Starlette:
        """What serves the requests.

        Raises:
            SettingsError: the settings are invalid.
        """
        return self._assemble()


async def _refuse(error: SettingsError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer for an application with invalid settings; only the log says which."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    _logger.critical("%s", error)
    refusal = InternalError("This server's settings are invalid. Check its log")
    response = dialect_of(scope["path"]).response(refusal, "")
    await SecurityHeadersMiddleware(response)(scope, receive, send)
