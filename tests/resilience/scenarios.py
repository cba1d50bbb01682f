"""The scenarios: what is done to the gateway, its upstream, its log and its clients."""

import asyncio
import os
import random
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import ExitStack, asynccontextmanager
from typing import Any, NamedTuple

import httpx

from tests.namespaces import machine
from tests.resilience import malformed
from tests.resilience.asking import DIES, ENDS, Asker, Outcome, Tally
from tests.resilience.running import (
    Program,
    State,
    gateway,
    program,
    redis,
    seen,
    upstream,
)
from tests.resilience.upstream import TOKENS, WAYS

FAILING = 0.05
"""The share of the upstream's answers that fail."""
AGAIN_S = 0.1
"""How long a client waits whose connection was refused, or broke."""
UNREACHABLE = "Ollama connection error: "
STOPPING = "The server is stopping"
FULL = ("This server has too many connections", "Ollama connection error: this server has no file")


class Row(NamedTuple):
    """What a scenario found."""

    tally: Tally
    before: State
    after: State


class Stage(NamedTuple):
    """Everything that a scenario may break."""

    ollama: Program
    gateway: Program
    asker: Asker
    rows: list[Row]


@asynccontextmanager
async def stage(
    long: bool,
    *enter: str,
    ollama: Program | None = None,
    errors: tuple[str, ...] = (),
    breaks: Collection[Outcome] = (),
    limit_s: float = 60,
    stdout: int = subprocess.DEVNULL,
    **environ: str,
) -> AsyncIterator[Stage]:
    """Start everything; at the end, compare what the gateway holds with what it held before."""
    with ExitStack() as stack:
        source = stack.enter_context(program(ollama or upstream()))
        served = gateway(source.url, *enter, stdout=stdout, environ=environ)
        server = stack.enter_context(program(served))
        warm_up = Asker(server.url)
        await warm_up.ask_all(["-"] * 50)  # what it loads at first, and keeps, is not a leak
        if long:
            await warm_up.aclose()
        before = await server.calm_state(1) if long else server.state()
        asker = Asker(server.url, errors=errors, breaks=breaks, limit_s=limit_s)
        rows: list[Row] = []
        yield Stage(source, server, asker, rows)
        arrived = seen(source.url)
        tally = asker.settle(arrived)
        for number in (number for number, count in arrived.items() if count > 1):
            tally.note(Outcome.WRONG, f"request {number} reached the upstream twice")
        await asker.aclose()
        await warm_up.aclose()
        rows.append(Row(tally, before, await server.calm_state(before.sockets)))


async def under_load(
    asker: Asker, seconds: float, hurt: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """Send requests for `seconds` while `hurt` breaks something; then all must be well."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    hurting = asyncio.create_task(hurt())

    async def work() -> None:
        while loop.time() < end or not hurting.done():
            if not await asker.ask(pace_s=0.02):
                await asyncio.sleep(AGAIN_S)

    await asyncio.gather(hurting, *(work() for _ in range(24)))
    asker.errors = ()
    await asker.ask_all(["-"] * 24)


async def open_streams(long: bool) -> Row:
    """Many long-lived streams."""
    count, seconds = (1000, 120) if long else (100, 3)
    async with stage(
        long, limit_s=seconds + 60, MAX_CONCURRENT=str(count), REQUEST_TIMEOUT_S="300"
    ) as on:
        asks = (on.asker.ask(pace_s=seconds / TOKENS, streamed=True) for _ in range(count))
        await asyncio.gather(*asks)
    return on.rows[0]


async def mixed(long: bool) -> Row:
    """Plain and streamed chats, 5 % of them failing upstream in every way."""
    count = 20_000 if long else 1000
    chance = random.Random(13)  # noqa: S311
    ways = list(WAYS) if long else [way for way in WAYS if "silence" not in way]
    async with stage(long, REQUEST_TIMEOUT_S="10") as on:
        asked = ("-" if chance.random() >= FAILING else chance.choice(ways) for _ in range(count))
        await on.asker.ask_all(asked, at_once=64)
        await on.asker.ask_all(WAYS)
    return on.rows[0]


async def upstream_killed(long: bool) -> Row:
    """Ollama is killed and started again."""
    async with stage(long, errors=(UNREACHABLE,)) as on:

        async def hurt() -> None:
            for _ in range(10 if long else 1):
                await asyncio.sleep(0.5)
                await on.ollama.stop_without_blocking(signal.SIGKILL)
                await asyncio.sleep(0.5)
                await on.ollama.start_without_blocking()

        await under_load(on.asker, 30 if long else 2.5, hurt)
    return on.rows[0]


async def upstream_frozen(long: bool) -> Row:
    """Ollama freezes and resumes: no request may fail."""
    async with stage(long) as on:

        async def hurt() -> None:
            for _ in range(5 if long else 1):
                await asyncio.sleep(0.5)
                on.ollama.send(signal.SIGSTOP)
                await asyncio.sleep(3 if long else 1)
                on.ollama.send(signal.SIGCONT)

        await under_load(on.asker, 20 if long else 2, hurt)
    return on.rows[0]


async def upstream_unplugged(long: bool) -> Row:
    """Packets to and from Ollama's machine vanish for 30 s, or 4 s in the quick form."""
    with machine() as other:
        enter = ("ip", "netns", "exec", other.name)
        source = upstream(*enter, host=other.address)
        # Errors are due 15 s after the last packet, long before the deadline.
        async with stage(
            long, ollama=source, errors=(UNREACHABLE,), limit_s=40, REQUEST_TIMEOUT_S="100"
        ) as on:

            async def hurt() -> None:
                await asyncio.sleep(0.5)
                other.unplug()
                await asyncio.sleep(30 if long else 4)
                other.plug_in()

            await under_load(on.asker, 45 if long else 5, hurt)
        return on.rows[0]


def gateway_signalled(number: signal.Signals) -> Callable[[bool], Coroutine[Any, Any, Row]]:
    async def scenario(long: bool) -> Row:
        ends = number is not signal.SIGHUP
        breaks = {signal.SIGTERM: ENDS, signal.SIGKILL: DIES}.get(number, ())
        errors = (STOPPING,) if number is signal.SIGTERM else ()
        async with stage(long, errors=errors, breaks=breaks, SHUTDOWN_GRACE_S="0.3") as on:

            async def hurt() -> None:
                for _ in range(10 if long else 2):
                    await asyncio.sleep(0.4)
                    if ends:
                        await on.gateway.stop_without_blocking(number)
                        await on.gateway.start_without_blocking()
                    else:
                        on.gateway.send(number)

            await under_load(on.asker, 20 if long else 2, hurt)
        return on.rows[0]

    return scenario


async def redis_hurt(long: bool) -> Row:
    """The rate limiter's store is killed, restarted and frozen: no request may fail."""
    with program(redis()) as store:
        async with stage(long, RATE_LIMIT="999999999/minute", RATE_LIMIT_STORAGE=store.url) as on:

            async def hurt() -> None:
                for _ in range(5 if long else 1):
                    await store.stop_without_blocking(signal.SIGKILL)
                    await asyncio.sleep(0.5)
                    await store.start_without_blocking()
                    await asyncio.sleep(0.5)
                    store.send(signal.SIGSTOP)
                    await asyncio.sleep(1)
                    store.send(signal.SIGCONT)

            await under_load(on.asker, 15 if long else 3, hurt)
        return on.rows[0]


async def log_unread(long: bool) -> Row:
    """Nobody reads the log, and its pipe is full."""
    reader, writer = os.pipe()
    try:
        async with stage(long, stdout=writer) as on:
            await on.asker.ask_all(["-"] * (20_000 if long else 800))
    finally:
        os.close(reader)
        os.close(writer)
    return on.rows[0]


async def log_disk_full(long: bool) -> Row:
    """LOG_FILE is on a full disk."""
    async with stage(long, LOG_FILE="/dev/full") as on:
        await on.asker.ask_all(["-"] * (5000 if long else 300))
    return on.rows[0]


async def descriptors_out(long: bool) -> Row:
    """More clients than the gateway may have open files: the others must try again."""
    limit = ("bash", "-c", 'ulimit -n 400; exec "$@"', "bash")
    async with stage(long, *limit, errors=FULL, breaks=ENDS) as on:
        for _ in range(10 if long else 1):
            await on.asker.ask_all(["-"] * 600, pace_s=0.02, at_once=600)
    return on.rows[0]


async def leavers(long: bool) -> Row:
    """Clients disconnect at random moments."""
    chance = random.Random(13)  # noqa: S311
    async with stage(long) as on:
        for _ in range(20 if long else 2):
            waits = (chance.uniform(0, 0.5) for _ in range(100))
            await asyncio.gather(*(on.asker.ask(pace_s=0.05, leave_s=wait) for wait in waits))
        await on.asker.ask_all(["-"] * 64)
    return on.rows[0]


async def malformed_requests(long: bool) -> Row:
    """Invalid requests, and bytes that are not HTTP."""
    async with stage(long) as on:
        url = httpx.URL(on.gateway.url)
        count = 10_000 if long else 440
        await malformed.send_all(url.host, url.port or 80, count, on.asker.tally)
    return on.rows[0]


async def soak(long: bool) -> Row:
    """Nothing breaks, for a long time."""
    async with stage(long) as on:
        await on.asker.ask_all(["-"] * (100_000 if long else 1000))
    return on.rows[0]


SCENARIOS: dict[str, Callable[[bool], Coroutine[Any, Any, Row]]] = {
    "open streams": open_streams,
    "5 % fail upstream": mixed,
    "Ollama killed": upstream_killed,
    "Ollama frozen": upstream_frozen,
    "Ollama unplugged": upstream_unplugged,
    "SIGTERM": gateway_signalled(signal.SIGTERM),
    "SIGHUP": gateway_signalled(signal.SIGHUP),
    "SIGKILL": gateway_signalled(signal.SIGKILL),
    "Redis killed, frozen": redis_hurt,
    "log unread": log_unread,
    "log disk full": log_disk_full,
    "descriptors out": descriptors_out,
    "clients leave": leavers,
    "malformed requests": malformed_requests,
    "soak": soak,
}
