"""GET /api/stats: response times by model, and the length of the queue."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.context import Caller
from core.contract.reports import QueueStats, StatsAnswer
from core.contract.responses import JSONResponse


async def stats(request: Request) -> Response:
    """Answer with the queue, and the statistics of the models that the client may use."""
    state, caller = request.app.state, Caller.of(request.scope)
    state.recorder.flush()
    return JSONResponse(
        StatsAnswer(
            models=[m for m in state.stats.by_model() if caller.may_use(m.model)],
            queue=QueueStats(running=state.queue.running, waiting=state.queue.waiting),
        )
    )


routes = [Route("/api/stats", stats)]
