"""Temporary errors: the same request may succeed some seconds later.

TryAgainLater
├── RateLimited 429
│   └── QuotaExceeded 429
└── JWKSUnavailable, KeysUnavailable, MemoryFull, NotReady, OllamaBusy, QueueFull,
    RateLimiterDown, ServerStopping, TooManyConnections, UsageUnavailable 503
"""

from core.contract.errors import ApiError


class TryAgainLater(ApiError):
    """The same request may succeed some seconds later."""

    status = 503

    def __init__(self, problem: str, retry_after_s: int) -> None:
        """State the `problem`, a sentence without its full stop, and when to retry."""
        super().__init__(f"{problem}. Try again in {retry_after_s} seconds")
        self.headers = {"retry-after": str(retry_after_s)}


class RateLimited(TryAgainLater):
    """The client has made too many requests, or sent wrong credentials too often."""

    status = 429


class QuotaExceeded(RateLimited):
    """The client has used up its tokens."""

    def __init__(self, amount: int, reset_s: int) -> None:
        super().__init__(
            f"Your quota of {amount} tokens is used up. It renews in {reset_s} seconds", reset_s
        )


class JWKSUnavailable(TryAgainLater):
    """The keys for verifying tokens cannot be fetched now."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            "Tokens cannot be verified now: their issuer is not responding", retry_after_s
        )


class KeysUnavailable(TryAgainLater):
    """API keys cannot be checked yet: the secret they are in could not be read."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("API keys cannot be checked now", retry_after_s)


class OllamaBusy(TryAgainLater):
    """Ollama's own queue is full, a relay limits requests, or a pool's machines are down."""

    def __init__(self, retry_after_s: int, problem: str = "busy: its queue is full") -> None:
        super().__init__(f"Ollama is {problem}", retry_after_s)


class QueueFull(TryAgainLater):
    """The queue is full, or no slot became free in time."""


class TooManyConnections(TryAgainLater):
    """The maximum number of connections is open, and all are in use."""


class MemoryFull(TryAgainLater):
    """The bodies of all requests together have reached MAX_MEMORY_BYTES."""

    def __init__(self) -> None:
        super().__init__("This server is holding as many request bodies as its memory allows", 5)


class NotReady(TryAgainLater):
    """Ollama does not answer, or is loading models: this server should not get requests yet."""

    def __init__(self, reason: str = "Ollama does not answer") -> None:
        super().__init__(reason, 5)


class ServerStopping(TryAgainLater):
    """The server is shutting down; another, or this one after a restart, will answer."""

    def __init__(self) -> None:
        super().__init__("The server is stopping", 5)
        self.headers = {**self.headers, "connection": "close"}


class UsageUnavailable(TryAgainLater):
    """USAGE_FILE is locked, or its disk fails."""

    def __init__(self) -> None:
        super().__init__("The counts cannot be read now", 5)


class RateLimiterDown(TryAgainLater):
    """Requests or slots cannot be counted, and none may go uncounted."""
