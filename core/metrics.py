"""Figures for Prometheus; imported by the bundle alone, since prometheus-client takes its time."""

from collections.abc import Callable, Collection
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from core.queue import FairQueue
from core.rate_limit import RateLimiter
from core.record import Record, Recorder

_SECONDS = (0.005, 0.02, 0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300)
_METHODS = {"GET", "HEAD", "OPTIONS", "POST"}


class Metrics:
    """Counts requests that are over; every label has a bounded set of values."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(
        self, paths: Collection[str], recorder: Recorder, queue: FairQueue, limiter: RateLimiter
    ) -> None:
        """Label requests with those of `paths`; all others are `other`."""
        self._paths = frozenset(paths)
        self._registry = CollectorRegistry()
        self._labelled: Callable[..., Any] = cache(lambda metric, *values: metric.labels(*values))
        prefix, registry = "ollama_web_api", self._registry

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, namespace=prefix, registry=registry)

        def histogram(name: str, text: str, *labels: str) -> Histogram:
            return Histogram(
                name, text, labels, namespace=prefix, registry=registry, buckets=_SECONDS
            )

        def gauge(name: str, text: str, value: Callable[[], float]) -> None:
            Gauge(name, text, namespace=prefix, registry=registry).set_function(value)

        self._requests = counter(
            "requests", "Requests by status; 0 is a client that left", "method", "path", "status"
        )
        self._duration = histogram("request_seconds", "Time of a request", "path")
        self._queued = histogram("queue_wait_seconds", "Time spent waiting for a slot")
        self._first_token = histogram("first_token_seconds", "Time to the first token", "model")
        self._tokens = counter("tokens", "Tokens written", "model")
        self._upstream_errors = counter("upstream_errors", "Failures of Ollama", "error")
        self._cancels = counter("cancelled_requests", "Requests whose client left")
        self._rate_limited = counter("rate_limited_requests", "Requests answered 429")
        gauge("requests_in_flight", "Requests being served", lambda: recorder.in_flight)
        gauge("queue_running", "Requests that Ollama works on", lambda: queue.running)
        gauge("queue_waiting", "Requests that wait for a slot", lambda: queue.waiting)
        gauge("uncounted_requests", "Hits that no store has counted", lambda: limiter.uncounted)

    def observe(self, record: Record) -> None:
        """Take in a request that is over."""
        path = record.path.removesuffix("/") or "/"
        path = path if path in self._paths else "other"
        method = record.method if record.method in _METHODS else "other"
        self._labelled(self._requests, method, path, record.status).inc()
        self._labelled(self._duration, path).observe(record.duration_s)
        if record.error in {"OllamaError", "OllamaBusy", "RequestTimeout"}:
            self._upstream_errors.labels(record.error).inc()
        elif record.error == "RateLimited":
            self._rate_limited.inc()
        elif record.error == "ClientDisconnect":
            self._cancels.inc()
        if record.queued_s or (record.model and not record.error):
            self._queued.observe(record.queued_s)
        if record.model and (not record.error or record.first_token_s is not None):
            model = record.model.lower()  # which exists, as it has answered
            self._labelled(self._tokens, model).inc(record.tokens)
            if record.first_token_s is not None:
                self._labelled(self._first_token, model).observe(record.first_token_s)

    def text(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self._registry)
