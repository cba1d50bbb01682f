"""One module per endpoint; `handlers.asgi` combines them all."""

import gc

gc.set_threshold(100_000)  # imports make little garbage; looking for it takes 4 % of a cold start
