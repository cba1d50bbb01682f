"""One module per endpoint; `handlers.asgi` is all of them together."""

import gc

gc.disable()  # create_app enables it: to look for garbage among imports is 4 % of a cold start
