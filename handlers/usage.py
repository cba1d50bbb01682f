"""GET /api/usage: what the caller has used, by model and day."""

import asyncio
from datetime import date

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.context import Caller
from core.contract.errors import BadRequest
from core.contract.reports import Usage, UsageAnswer
from core.contract.responses import JSONResponse
from core.usage.ledger import Ledger, caller_of


async def usage(request: Request) -> Response:
    """Answer with the caller's own counts, starting with the day `since`."""
    ledger: Ledger = request.app.state.ledger
    request.app.state.recorder.flush()
    caller = caller_of(Caller.of(request.scope).id)
    try:
        since = date.fromisoformat(request.query_params.get("since", date.min.isoformat()))
    except ValueError:
        raise BadRequest("since: must be a date such as 2026-01-31") from None
    rows = await asyncio.to_thread(ledger.read, caller, since)
    counts = msgspec.convert([row._asdict() for row in rows], list[Usage])
    return JSONResponse(UsageAnswer(caller=caller, usage=counts))


routes = [Route("/api/usage", usage)]
