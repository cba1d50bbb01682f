"""The caller of a request, as the gate has found out."""

import msgspec


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls: the unit of rate limits and of the queue's fairness.

    The authentication middleware puts it into `scope["state"]["client"]`, so that endpoints find
    it in `request.state.client`.
    """

    id: str
    """`key:ci`, `jwt:<subject>` or `address:192.0.2.1`: unique, and safe to log."""
    name: str
    address: str
    rate: str | None = None
    """Overrides RATE_LIMIT."""
    concurrent: int | None = None
    """Overrides MAX_CONCURRENT_PER_CLIENT."""
    models: tuple[str, ...] | None = None
    """`fnmatch` patterns of the models it may see and use; None is all."""
