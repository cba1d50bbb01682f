"""OpenTelemetry traces: a span per request, with a child span for Ollama, and no conversation.

The packages are an extra, `otel`; nothing here is imported while OTEL_EXPORTER_OTLP_ENDPOINT is
unset.
"""

import threading
from collections.abc import Collection

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from core import __version__
from core.context import Record

CLOSE_S = 2
"""How long a collector that does not answer may delay the end of the server."""
_FIRST_ERROR = 500


class Traces:
    """Creates a request's spans when it has ended, and sends them in batches, from a thread."""

    def __init__(self, endpoint: str, paths: Collection[str]) -> None:
        """Send to the OTLP/HTTP collector at `endpoint`; paths outside `paths` are not named."""
        self._paths = frozenset(paths)
        defaults = Resource.create({"service.name": "ollama-web-api"})
        self._provider = TracerProvider(resource=defaults)
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("ollama-web-api", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def observe(self, *records: Record) -> None:
        """Create the spans of finished requests, within their clients' traces if there are any."""
        for record in records:
            self._observe(record)

    def _observe(self, record: Record) -> None:
        ended_at = _ns(record.ended_at)
        started_at = ended_at - _ns(record.duration_s)
        path = record.path.removesuffix("/") or "/"
        path = path if path in self._paths else "other"
        span = self._tracer.start_span(
            f"{record.method} {path}",
            context=self._propagator.extract({"traceparent": record.traceparent}),
            kind=SpanKind.SERVER,
            start_time=started_at,
            attributes={
                "http.request.method": record.method,
                "http.route": path,
                "http.response.status_code": record.status,
                "request.id": record.request_id,
                "enduser.id": record.caller.name if record.caller else "",
            },
        )
        if record.error:
            span.set_attribute("error.type", record.error.__name__)
        if record.error and record.status >= _FIRST_ERROR:
            span.set_status(Status(StatusCode.ERROR))
        if record.asked_s is not None:
            inner = self._tracer.start_span(
                f"ollama {record.model}",
                context=trace.set_span_in_context(span),
                kind=SpanKind.CLIENT,
                start_time=started_at + _ns(record.asked_s),
                attributes={
                    "gen_ai.operation.name": "chat",
                    "gen_ai.request.model": record.model,
                    "gen_ai.usage.output_tokens": record.tokens,
                    "queue.wait_s": record.queued_s,
                },
            )
            if record.first_token_s is not None:
                inner.add_event("first token", timestamp=started_at + _ns(record.first_token_s))
            inner.end(ended_at)
        span.end(ended_at)

    def close(self) -> None:
        """Send what has not been sent yet, within CLOSE_S; drop the rest."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(CLOSE_S)


def _ns(seconds: float) -> int:
    return int(seconds * 1_000_000_000)
