"""Requests that need no credentials and are exempt from rate limits."""

from starlette.types import Scope

_SAFE = {"GET", "HEAD"}
_OPEN = {"/", "/service-worker.js", "/api/health", "/api/health/"}
_PROBES = {"/api/ready", "/api/ready/", "/metrics", "/metrics/"}


def is_public(scope: Scope) -> bool:
    """Return whether a request is open to everyone.

    That is the health check, which load balancers and scripts poll, and the chat page, which
    asks for a key itself.
    """
    if scope["method"] not in _SAFE:
        return False
    path: str = scope["path"]
    return path in _OPEN or path.startswith("/static/")


def is_probe(scope: Scope) -> bool:
    """Return whether a request is what load balancers and Prometheus send every few seconds."""
    return scope["method"] in _SAFE and scope["path"] in _PROBES
