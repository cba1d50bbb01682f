"""Checks of this machine and of what the server relies on: clock, limits, time-outs, the store."""

import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress

from core.doctor.findings import Finding, ok, problem, warning
from core.settings.schema import Settings

CONNECT_TIMEOUT_S = 2
MIN_FILES = 4096
"""Each stream has two sockets."""
FRONT_TIMEOUT_S = 310
"""How long the fronts in deploy/ wait."""
STOP_TIMEOUT_S = 45
"""How long the unit in deploy/systemd waits for the service to end."""


def examine(settings: Settings) -> Iterator[Finding]:
    """Check this machine and the settings."""
    yield from _clock()
    yield _files()
    yield _timeouts(settings)
    if settings.rate_limit_storage != "memory://":
        yield _store(settings)


def _clock() -> Iterator[Finding]:
    """Check that the clock is synchronized; a system without systemd does not say."""
    if not (timedatectl := shutil.which("timedatectl")):
        return
    command = [timedatectl, "show", "--property=NTPSynchronized", "--value"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.stdout.strip() == "no":
        yield warning(
            "clock",
            "this machine's clock is not synchronized, and keys and certificates expire by it",
            "timedatectl set-ntp true",
        )


def _files() -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # the server raises its own to this
    if hard < MIN_FILES:
        return warning(
            "files",
            f"a server started from here may open {hard} files, enough for {hard // 2} streams",
            "the unit in deploy/systemd has LimitNOFILE=65536; for a terminal, ulimit -Hn 65536",
        )
    return ok("files", f"{hard} may be open at once")


def _timeouts(settings: Settings) -> Finding:
    request_s, queue_s = settings.request_timeout_s, settings.queue_timeout_s
    if queue_s >= request_s:
        return warning(
            "time-outs",
            f"QUEUE_TIMEOUT_S ({queue_s:g}) is not below REQUEST_TIMEOUT_S ({request_s:g}), so a "
            "waiting request gets a 504 instead of a 503 with Retry-After",
            "lower QUEUE_TIMEOUT_S",
        )
    if request_s >= FRONT_TIMEOUT_S:
        return warning(
            "time-outs",
            f"REQUEST_TIMEOUT_S ({request_s:g}) is not below the {FRONT_TIMEOUT_S} s of the fronts "
            "in deploy, which then cut answers off",
            "raise theirs too",
        )
    if settings.shutdown_grace_s >= STOP_TIMEOUT_S:
        return warning(
            "time-outs",
            f"SHUTDOWN_GRACE_S ({settings.shutdown_grace_s:g}) is not below the {STOP_TIMEOUT_S} s "
            "after which systemd kills the service",
            "systemctl edit ollama-web-api, and raise TimeoutStopSec",
        )
    return ok(
        "time-outs",
        f"queue {queue_s:g} s < request {request_s:g} s < front {FRONT_TIMEOUT_S} s",
    )


def _store(settings: Settings) -> Finding:
    from redis import Redis  # noqa: PLC0415 - few have a store
    from redis.exceptions import (  # noqa: PLC0415
        AuthenticationError,
        NoPermissionError,
        RedisError,
        ResponseError,
    )

    fate = "all requests are refused" if settings.rate_limit_fail_closed else "there are no limits"
    try:
        with (
            Redis.from_url(
                settings.rate_limit_storage,
                socket_timeout=CONNECT_TIMEOUT_S,
                socket_connect_timeout=CONNECT_TIMEOUT_S,
            ) as redis,
            suppress(NoPermissionError),  # the limits need no PING
        ):
            redis.ping()
    except RedisError as error:
        what, advice = "is down", "systemctl status valkey"
        if isinstance(error, AuthenticationError):
            what, advice = "wants another password", "correct its user and password"
        elif isinstance(error, ResponseError):
            what, advice = f"refuses its clients ({error})", "correct its number, or its server"
        return problem("store", f"RATE_LIMIT_STORAGE {what}, so {fate}", advice)
    return ok("store", "RATE_LIMIT_STORAGE answers")
