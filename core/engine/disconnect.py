"""Stops the work on a request whose client has disconnected."""

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class DisconnectMiddleware:
    """Cancels the app's work for a client that has closed its connection.

    It watches the client once the body of its request is complete.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application on an HTTP request; anything else is passed through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            tasks.cancel_scope.cancel()

        async def receive_and_watch() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body"):
                tasks.start_soon(watch)
            return message

        async with anyio.create_task_group() as tasks:
            await self.app(scope, receive_and_watch, send)
            tasks.cancel_scope.cancel()
