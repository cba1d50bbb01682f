"""Prometheus metrics; only the bundle imports this, since prometheus-client loads slowly."""

from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

import prometheus_client as metrics
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import ClientDisconnect

from core.context import Record
from core.contract.errors import OllamaError, RequestTimeout
from core.contract.retryable import OllamaBusy, RateLimited

_SECONDS = (0.005, 0.02, 0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300)
_METHODS = {"GET", "HEAD", "OPTIONS", "POST"}
_UPSTREAM_FAILURES = (OllamaError, OllamaBusy, RequestTimeout)


class Gauge(NamedTuple):
    """A value that is read when Prometheus scrapes it."""

    name: str
    description: str
    value: Callable[[], float]


class Metrics:
    """Counts finished requests; every label has a bounded set of values."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self, paths: Collection[str], gauges: Iterable[Gauge]) -> None:
        """Label requests by path, those outside `paths` as `other`; read `gauges` when scraped."""
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

        self._requests = counter(
            "requests", "Requests by status; 0: the client disconnected", "method", "path", "status"
        )
        self._duration = histogram("request_seconds", "Duration of a request", "path")
        self._queued = histogram("queue_wait_seconds", "Time spent waiting for a slot")
        self._first_token = histogram("first_token_seconds", "Time to the first token", "model")
        self._tokens = counter("tokens", "Tokens generated", "model")
        self._upstream_errors = counter("upstream_errors", "Ollama failures", "error")
        self._cancels = counter("cancelled_requests", "Requests whose client disconnected")
        self._rate_limited = counter("rate_limited_requests", "Requests answered with a 429")
        for name, text, value in gauges:
            metrics.Gauge(name, text, namespace=prefix, registry=registry).set_function(value)

    def observe(self, record: Record) -> None:
        """Count a finished request."""
        path = record.path.removesuffix("/") or "/"
        path = path if path in self._paths else "other"
        method = record.method if record.method in _METHODS else "other"
        self._labelled(self._requests, method, path, record.status).inc()
        self._labelled(self._duration, path).observe(record.duration_s)
        error = record.error
        if error is None:
            pass
        elif issubclass(error, _UPSTREAM_FAILURES):
            self._upstream_errors.labels(error.__name__).inc()
        elif issubclass(error, RateLimited):
            self._rate_limited.inc()
        elif issubclass(error, ClientDisconnect):
            self._cancels.inc()
        if record.queued_s or (record.model and not record.error):
            self._queued.observe(record.queued_s)
        if record.model and (not record.error or record.first_token_s is not None):
            model = record.model.lower()  # a real model, since it answered
            self._labelled(self._tokens, model).inc(record.tokens)
            if record.first_token_s is not None:
                self._labelled(self._first_token, model).observe(record.first_token_s)

    def text(self, may_see: Callable[[str], bool]) -> bytes:
        """Return the metrics in Prometheus' text format, without those of hidden models."""
        return generate_latest(_Visible(self._registry, may_see))


class _Visible:
    """What a registry collects, without the samples of models that the client may not see."""

    def __init__(self, registry: CollectorRegistry, may_see: Callable[[str], bool]) -> None:
        self._registry = registry
        self._may_see = may_see

    def collect(self) -> Iterator[metrics.Metric]:
        for metric in self._registry.collect():
            metric.samples = [
                sample
                for sample in metric.samples
                if "model" not in sample.labels or self._may_see(sample.labels["model"])
            ]
            yield metric
