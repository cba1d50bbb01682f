"""Prometheus metrics; only the bundle imports this, since prometheus-client loads slowly.

While requests run, they are plain numbers: prometheus-client's own counters take a lock and look
up their labels each time, which was a twentieth of a plain chat. It renders them when scraped.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from starlette.requests import ClientDisconnect

from core.context import Record
from core.contract.errors import OllamaError, RequestTimeout
from core.contract.retryable import OllamaBusy, RateLimited

_PREFIX = "ollama_web_api_"
_SECONDS = (0.005, 0.02, 0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300)
_BOUNDS = [*map(floatToGoString, (*_SECONDS, float("inf")))]
_METHODS = {"GET", "HEAD", "OPTIONS", "POST"}
_UPSTREAM_FAILURES = (OllamaError, OllamaBusy, RequestTimeout)

Labels = tuple[str, ...]


class Gauge(NamedTuple):
    """A value that is read when Prometheus scrapes it."""

    name: str
    description: str
    value: Callable[[], float]


class _Histogram:
    def __init__(self) -> None:
        self.counts = [0] * len(_BOUNDS)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(_SECONDS, seconds)] += 1
        self.sum += seconds


class Metrics:
    """Counts finished requests; every label has a bounded set of values."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self, paths: Collection[str], gauges: Iterable[Gauge]) -> None:
        """Label requests by path, those outside `paths` as `other`; read `gauges` when scraped."""
        self._paths = frozenset(paths)
        self._gauges = [*gauges]
        self._requests = Counter[tuple[str, str, int]]()
        self._tokens = Counter[Labels]()
        self._upstream_errors = Counter[Labels]()
        self._cancels = self._rate_limited = 0
        self._durations = defaultdict[Labels, _Histogram](_Histogram)
        self._first_tokens = defaultdict[Labels, _Histogram](_Histogram)
        self._queued = _Histogram()

    def observe(self, *records: Record) -> None:
        """Count finished requests."""
        for record in records:
            self._observe(record)

    def _observe(self, record: Record) -> None:
        path = record.path.removesuffix("/") or "/"
        path = path if path in self._paths else "other"
        method = record.method if record.method in _METHODS else "other"
        self._requests[method, path, record.status] += 1
        self._durations[path,].observe(record.duration_s)
        if record.error:
            self._count(record.error)
        if record.queued_s or (record.model and not record.error):
            self._queued.observe(record.queued_s)
        if record.model and (not record.error or record.first_token_s is not None):
            model = record.model.lower()  # a real model, since it answered
            self._tokens[model,] += record.tokens
            if record.first_token_s is not None:
                self._first_tokens[model,].observe(record.first_token_s)

    def _count(self, error: type[BaseException]) -> None:
        if issubclass(error, _UPSTREAM_FAILURES):
            self._upstream_errors[error.__name__,] += 1
        elif issubclass(error, RateLimited):
            self._rate_limited += 1
        elif issubclass(error, ClientDisconnect):
            self._cancels += 1

    def text(self, may_see: Callable[[str], bool]) -> bytes:
        """Return the metrics in Prometheus' text format, without those of hidden models."""
        return generate_latest(_Snapshot(self._collect(may_see)))

    def _collect(self, may_see: Callable[[str], bool]) -> Iterator[Metric]:
        by_request = ("method", "path", "status")
        text = "Requests by status; 0: the client disconnected"
        requests = {(*of, str(status)): count for (*of, status), count in self._requests.items()}
        yield _counter("requests", text, by_request, requests)
        yield _histogram("request_seconds", "Duration of a request", ("path",), self._durations)
        text = "Time spent waiting for a slot"
        yield _histogram("queue_wait_seconds", text, (), {(): self._queued})
        first = {of: times for of, times in self._first_tokens.items() if may_see(*of)}
        yield _histogram("first_token_seconds", "Time to the first token", ("model",), first)
        tokens = {of: count for of, count in self._tokens.items() if may_see(*of)}
        yield _counter("tokens", "Tokens generated", ("model",), tokens)
        yield _counter("upstream_errors", "Ollama failures", ("error",), self._upstream_errors)
        text = "Requests whose client disconnected"
        yield _counter("cancelled_requests", text, (), {(): self._cancels})
        text = "Requests answered with a 429"
        yield _counter("rate_limited_requests", text, (), {(): self._rate_limited})
        for name, text, value in self._gauges:
            yield GaugeMetricFamily(f"{_PREFIX}{name}", text, value())


class _Snapshot(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _counter(name: str, text: str, labels: Labels, values: Mapping[Labels, int]) -> Metric:
    family = CounterMetricFamily(f"{_PREFIX}{name}", text, labels=labels)
    for of, value in values.items():
        family.add_metric(of, value)
    return family


def _histogram(name: str, text: str, labels: Labels, values: Mapping[Labels, _Histogram]) -> Metric:
    family = HistogramMetricFamily(f"{_PREFIX}{name}", text, labels=labels)
    for of, histogram in values.items():
        buckets = [*zip(_BOUNDS, accumulate(histogram.counts), strict=True)]
        family.add_metric(of, buckets, histogram.sum)
    return family
