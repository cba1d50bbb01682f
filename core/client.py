"""The caller of a request, as the gate has found out."""

import msgspec
from starlette.types import Scope


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


def is_public(scope: Scope) -> bool:
    """Tell whether a request asks for what is for everybody, and not counted.

    That is the health, which load balancers and scripts probe, and the chat page, which asks for
    a key itself.
    """
    path = scope["path"]
    return scope["method"] in {"GET", "HEAD"} and (
        path in {"/", "/api/health", "/api/health/"} or path.startswith("/static/")
    )
