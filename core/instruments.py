"""What a long-running server records: statistics, metrics, usage and traces.

`app` imports this for the bundle alone: on AWS Lambda none of it would outlive a request, and
prometheus-client is slow to import.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.applications import Starlette

from core.chat.body import MemoryBudget
from core.chat.queue import FairQueue
from core.context import Recorder
from core.gate.rates import RateLimiter
from core.observe import logs
from core.observe.metrics import Gauge, Metrics
from core.observe.stats import Stats
from core.settings.environment import SettingsError
from core.settings.schema import Settings
from core.usage.ledger import Ledger

if TYPE_CHECKING:
    from core.chat.leases import LeasedQueue


def instrument(app: Starlette, paths: Sequence[str], limiter: RateLimiter, ledger: Ledger) -> None:
    """Set up all recording for the requests of `app`, and store the parts in its state.

    Requests to paths outside `paths` are counted together.

    Raises:
        SettingsError: traces are configured, but their packages are not installed.
    """
    recorder: Recorder = app.state.recorder
    queue: FairQueue | LeasedQueue = app.state.queue
    memory: MemoryBudget = app.state.memory
    app.state.stats = Stats()
    app.state.ledger = ledger
    app.state.metrics = Metrics(
        paths,
        [
            Gauge("requests_in_flight", "Requests in progress", lambda: recorder.in_flight),
            Gauge("queue_running", "Requests being answered by Ollama", lambda: queue.running),
            Gauge("queue_waiting", "Requests waiting for a slot", lambda: queue.waiting),
            Gauge("body_bytes", "Bytes of request bodies in memory", lambda: memory.used),
            Gauge("usage_failures", "Failed writes to USAGE_FILE", lambda: ledger.failures),
            Gauge("uncounted_requests", "Hits that no store counted", lambda: limiter.uncounted),
            Gauge("dropped_log_lines", "Log lines that were not written", logs.dropped_lines),
        ],
    )
    _trace(app, paths)
    recorder.freezes = False
    recorder.observers += (app.state.metrics.observe, app.state.stats.observe, ledger.observe)


def _trace(app: Starlette, paths: Sequence[str]) -> None:
    settings: Settings = app.state.settings
    if not settings.otel_exporter_otlp_endpoint:
        return
    try:
        from core.observe.traces import Traces  # noqa: PLC0415 - an extra
    except ImportError:
        raise SettingsError(
            "OTEL_EXPORTER_OTLP_ENDPOINT needs the packages opentelemetry-sdk and "
            "opentelemetry-exporter-otlp-proto-http: install them, or unset it"
        ) from None
    traces = Traces(settings.otel_exporter_otlp_endpoint, paths)
    recorder: Recorder = app.state.recorder
    recorder.traced = True
    recorder.observers += (traces.observe,)
    app.state.close_traces = traces.close
