"""OpenTelemetry traces, as a collector receives them."""

import asyncio
import gzip
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from core.context import Record
from core.observe import traces
from tests.conftest import Serve
from tests.fake_ollama import FakeOllama, error

CHAT = {"message": "내 비밀 prompt", "model": "smollm2:135m"}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(HTTPServer):
    """Collects what is sent to /v1/traces."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def spans(self) -> dict[str, Span]:
        """Return the spans by their names."""
        requests = map(ExportTraceServiceRequest.FromString, self.bodies)
        return {
            span.name: span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.bodies.append(body)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def spans(collector: Collector, *names: str) -> dict[str, Span]:
    async with asyncio.timeout(20):
        while not set(names) <= collector.spans().keys():
            await asyncio.sleep(0.02)
    return collector.spans()


async def test_a_request_is_a_span_and_ollamas_part_another_in_the_clients_trace(
    serve: Serve, collector: Collector
) -> None:
    url = await serve(otel_exporter_otlp_endpoint=collector.url)
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    async with httpx.AsyncClient(trust_env=False) as client:
        await client.post(f"{url}/api/chat/stream", json=CHAT, headers=headers)
    found = await spans(collector, "POST /api/chat/stream", "ollama smollm2:135m")
    outer, inner = found["POST /api/chat/stream"], found["ollama smollm2:135m"]
    assert (outer.trace_id.hex(), outer.parent_span_id.hex()) == (TRACE, PARENT)
    assert (inner.trace_id, inner.parent_span_id) == (outer.trace_id, outer.span_id)
    assert (outer.kind, inner.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    starts = outer.start_time_unix_nano, inner.start_time_unix_nano
    ends = inner.end_time_unix_nano, outer.end_time_unix_nano
    assert [*starts, *ends] == sorted((*starts, *ends))
    assert [event.name for event in inner.events] == ["first token"]
    attributes = {entry.key: entry.value for entry in (*outer.attributes, *inner.attributes)}
    assert attributes["http.response.status_code"].int_value == 200
    assert attributes["gen_ai.usage.output_tokens"].int_value == 8
    sent = b"".join(collector.bodies)
    for word in ("비밀", "prompt", "Paris"):
        assert word.encode() not in sent


async def test_a_relayed_request_is_traced_alike(serve: Serve, collector: Collector) -> None:
    url = await serve(otel_exporter_otlp_endpoint=collector.url)
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    body = {"model": "smollm2:135m", "stream": True, "messages": [{"role": "user"}]}
    async with httpx.AsyncClient(trust_env=False) as client:
        await client.post(f"{url}/v1/chat/completions", json=body, headers=headers)
    found = await spans(collector, "POST /v1/chat/completions", "ollama smollm2:135m")
    outer, inner = found["POST /v1/chat/completions"], found["ollama smollm2:135m"]
    assert (outer.trace_id.hex(), outer.parent_span_id.hex()) == (TRACE, PARENT)
    assert (inner.trace_id, inner.parent_span_id) == (outer.trace_id, outer.span_id)
    assert [event.name for event in inner.events] == ["first token"]
    attributes = {entry.key: entry.value for entry in (*outer.attributes, *inner.attributes)}
    assert attributes["gen_ai.usage.output_tokens"].int_value == 8


async def test_a_failure_is_seen_and_a_foreign_path_is_not_named(
    serve: Serve, fake: FakeOllama, collector: Collector
) -> None:
    fake.reply(error(500, "secret"), path="/api/chat")
    url = await serve(otel_exporter_otlp_endpoint=collector.url)
    async with httpx.AsyncClient(trust_env=False) as client:
        await client.post(f"{url}/api/chat", json=CHAT)
        await client.get(f"{url}/secret-path")
    found = await spans(collector, "POST /api/chat", "GET other")
    assert found["POST /api/chat"].status.code == Status.STATUS_CODE_ERROR
    assert b"secret" not in b"".join(collector.bodies)


def test_a_collector_that_never_answers_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(traces, "CLOSE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        tracer = traces.Traces(f"http://127.0.0.1:{mute.getsockname()[1]}", ["/api/chat"])
        tracer.observe(
            Record(request_id="1", method="POST", path="/api/chat", started_at=0, ended_at=1)
        )
        started_at = time.monotonic()
        tracer.close()
        assert time.monotonic() - started_at < 5, "OpenTelemetry's own limits are 10 s and 30 s"


def test_without_the_setting_nothing_of_it_is_imported() -> None:
    code = (
        "import sys; from handlers.asgi import app; app.reload(); "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
