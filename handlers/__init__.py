"""One module per endpoint; `handlers.asgi` combines them all."""

import gc

gc.set_threshold(100_000)  # imports leave little garbage; collecting takes 4 % of a cold start
