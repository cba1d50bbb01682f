"""One module per endpoint; `handlers.asgi` is all of them together."""

import gc

gc.set_threshold(20_000)  # imports make next to no garbage: Python's 700 cost 4 % of a cold start
