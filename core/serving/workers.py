"""Detects that several processes serve this application, each with its own limits."""

import logging
import multiprocessing
import sys

from core.settings.environment import SettingsError
from core.settings.schema import Settings

_logger = logging.getLogger(__name__)


def check(settings: Settings) -> None:
    """Refuse to be one of several workers without a shared store or with uvicorn's proxy headers.

    What the workers do not share is logged.

    Raises:
        SettingsError: each worker would count requests for itself, or uvicorn would replace
            clients' addresses before TRUSTED_PROXIES can tell which to believe.
    """
    if not _is_worker():
        return
    if settings.rate_limit_storage == "memory://":
        raise SettingsError(
            "Several workers need RATE_LIMIT_STORAGE=redis://..., or each of them would allow "
            "every client its whole RATE_LIMIT. Without it, run one process: python -m handlers"
        )
    if "--no-proxy-headers" not in sys.argv:
        raise SettingsError(
            "Several workers need uvicorn's option --no-proxy-headers, or it would believe every "
            "X-Forwarded-For from this machine, whatever TRUSTED_PROXIES says"
        )
    if settings.share_queue == "always":
        _logger.warning(
            "This is one of several workers: /api/stats and /metrics are each worker's own"
        )
        return
    _logger.warning(
        "This is one of several workers: MAX_CONCURRENT (%d), MAX_QUEUE, /api/stats and /metrics "
        "are each worker's own. HAProxy's maxconn bounds them together: deploy/haproxy",
        settings.max_concurrent,
    )


def _is_worker() -> bool:
    """Return whether uvicorn has spawned this process as one of several."""
    return multiprocessing.parent_process() is not None and "--reload" not in sys.argv
