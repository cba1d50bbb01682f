"""One module per endpoint; `handlers.asgi` is all of them together."""
