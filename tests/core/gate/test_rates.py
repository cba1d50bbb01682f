import asyncio
import logging
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from core.context import Caller, Record, Recorder
from core.contract.errors import BadRequest
from core.contract.responses import JSONResponse
from core.contract.retryable import RateLimited, RateLimiterDown
from core.gate import hits as moving_window
from core.gate import rates as rate_limit
from core.gate import redis_hits as redis_store
from core.gate.checks import GateMiddleware
from core.gate.hits import MemoryStore, Rate
from core.gate.public import is_public
from core.gate.rates import FailureLimiter, RateLimit, RateLimiter, parse_rate
from core.serving.exchange import ExchangeMiddleware
from core.settings.environment import SettingsError
from core.settings.schema import Settings
from tests.redis_server import RedisServer
from tests.slow_link import slow_link

MINUTE = Rate(2, 60)


@pytest.fixture(params=["memory", "redis"])
def storage(request: pytest.FixtureRequest) -> str:
    if request.param == "memory":
        return "memory://"
    server: RedisServer = request.getfixturevalue("redis")
    return server.url


MakeLimiter = Callable[..., RateLimiter]
Connect = Callable[..., httpx.AsyncClient]


@pytest.fixture
async def limiter_for(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MakeLimiter]:
    """Make a `RateLimiter` that counts in a storage, however slow this machine is."""
    monkeypatch.setattr(redis_store, "TIMEOUT_S", 20)
    async with AsyncExitStack() as stack:

        def make(storage: str, **values: Any) -> RateLimiter:
            limiter = RateLimiter(Settings(rate_limit_storage=storage, **values))
            stack.push_async_callback(limiter.aclose)
            return limiter

        yield make


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Connect a client with some id to an application behind the middleware."""
    async with AsyncExitStack() as stack:

        def connect(
            limiter: RateLimiter,
            name: str = "ci",
            *,
            rate: str = "2/minute",
            own: str | None = None,
            timeout_s: float = 10,
        ) -> httpx.AsyncClient:
            caller = Caller(id=f"key:{name}", name=name, address="192.0.2.1", rate=own)
            check = RateLimit(limiter=limiter, rate=rate)
            limited = GateMiddleware(answer, checks=[check])
            transport = httpx.ASGITransport(
                ExchangeMiddleware(
                    authenticated(limited, caller), timeout_s=timeout_s, recorder=Recorder()
                )
            )
            connection = httpx.AsyncClient(transport=transport, base_url="http://test")
            stack.push_async_callback(connection.aclose)
            return connection

        yield connect


def authenticated(app: ASGIApp, caller: Caller) -> ASGIApp:
    async def middleware(scope: Scope, receive: Receive, send: Send) -> None:
        record = Record.of(scope)
        record.caller, record.is_exempt = caller, is_public(scope)
        await app(scope, receive, send)

    return middleware


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    match scope["path"]:
        case "/bad":
            raise BadRequest("Do better")
        case "/broken":
            raise ZeroDivisionError
        case "/slow":
            await asyncio.sleep(60)
    await JSONResponse({"success": True})(scope, receive, send)


def seconds(header: str) -> int:
    return int(header.rpartition("t=")[2])


async def test_a_client_sees_its_remaining_quota_until_it_is_refused(
    storage: str, limiter_for: MakeLimiter, connect: Connect
) -> None:
    client = connect(limiter_for(storage))
    answers = [await client.get("/api/models") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"default";q=2;w=60'}
    limits = [answer.headers["ratelimit"] for answer in answers]
    assert [limit.partition(";t=")[0] for limit in limits] == [
        f'"default";r={remaining}' for remaining in (1, 0, 0, 0)
    ]
    assert all(40 <= seconds(limit) <= 60 for limit in limits)
    refused = answers[-1]
    assert refused.headers["retry-after"] == str(seconds(limits[-1]))
    assert refused.json() == {
        "success": False,
        "error": "Too many requests: your limit is 2/minute. "
        f"Try again in {refused.headers['retry-after']} seconds",
    }
    assert "retry-after" not in answers[0].headers


async def test_a_window_moves(storage: str, limiter_for: MakeLimiter) -> None:
    limiter = limiter_for(storage)
    rate = Rate(1, 1)
    await limiter.hit("ci", rate)
    await asyncio.sleep(1.05)
    quota = await limiter.hit("ci", rate)
    assert quota
    assert (quota.allowed, quota.remaining) == (True, 0)
    assert 0 < quota.reset_s <= 1


async def test_each_client_has_its_own_count_and_a_key_its_own_rate(
    limiter_for: MakeLimiter, connect: Connect
) -> None:
    limiter = limiter_for("memory://")
    ci, page = connect(limiter), connect(limiter, "page", own="1/hour")
    for _ in range(3):
        await ci.get("/api/models")
    first, second = [await page.get("/api/models") for _ in range(2)]
    assert (first.status_code, second.status_code) == (200, 429)
    assert first.headers["ratelimit-policy"] == '"default";q=1;w=3600'


async def test_without_a_rate_nothing_is_counted(
    limiter_for: MakeLimiter, connect: Connect
) -> None:
    client = connect(limiter_for("memory://"), rate="off")
    for _ in range(3):
        answer = await client.get("/api/models")
        assert answer.status_code == 200
        assert "ratelimit" not in answer.headers


async def test_health_probes_do_not_count(limiter_for: MakeLimiter, connect: Connect) -> None:
    client = connect(limiter_for("memory://"), rate="1/minute")
    for path in ("/api/health", "/api/health/"):
        assert (await client.get(path)).status_code == 200
        assert (await client.head(path)).status_code == 200
    assert (await client.post("/api/health")).status_code == 200
    assert (await client.post("/api/health")).status_code == 429


@pytest.mark.parametrize(("path", "status"), [("/bad", 400), ("/broken", 500), ("/slow", 504)])
async def test_an_error_counts_and_reports_the_remaining_quota(
    limiter_for: MakeLimiter, connect: Connect, path: str, status: int
) -> None:
    answer = await connect(limiter_for("memory://"), timeout_s=0.1).get(path)
    assert answer.status_code == status
    assert answer.headers["ratelimit"].startswith('"default";r=1;t=')


async def test_wrong_credentials_are_limited_by_address(
    storage: str, limiter_for: MakeLimiter
) -> None:
    failures = FailureLimiter(limiter_for(storage), "2/minute")
    for _ in range(2):
        await failures.hit("192.0.2.1")
    with pytest.raises(RateLimited, match="wrong credentials") as caught:
        await failures.hit("192.0.2.1")
    assert 1 <= int(caught.value.headers["retry-after"]) <= 60
    await failures.hit("192.0.2.2")


async def test_limiting_wrong_credentials_is_optional(limiter_for: MakeLimiter) -> None:
    failures = FailureLimiter(limiter_for("memory://"), "off")
    for _ in range(20):
        await failures.hit("192.0.2.1")


async def test_the_memory_store_forgets_expired_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(moving_window, "monotonic", lambda: now)
    store = MemoryStore()
    for number in range(5000):
        await store.hit(f"address:{number}", MINUTE)
        now += 0.2
    assert len(store._hits) < 2000
    assert (await store.hit("address:4999", MINUTE)).remaining == 0


async def test_processes_share_a_count_in_redis(
    redis: RedisServer, limiter_for: MakeLimiter
) -> None:
    one, other = limiter_for(redis.url), limiter_for(f"{redis.url}/0")
    quotas = [await limiter.hit("ci", MINUTE) for limiter in (one, other, one, other)]
    assert [quota and quota.allowed for quota in quotas] == [True, True, False, False]


async def test_concurrent_hits_are_counted_exactly(storage: str, limiter_for: MakeLimiter) -> None:
    limiter = limiter_for(storage)
    quotas = await asyncio.gather(*(limiter.hit("ci", Rate(30, 60)) for _ in range(100)))
    assert sum(quota is not None and quota.allowed for quota in quotas) == 30


async def test_requests_pass_while_redis_is_down(
    redis: RedisServer,
    limiter_for: MakeLimiter,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rate_limit, "STORE_RETRY_S", 0)  # retries the store on each request
    limiter = limiter_for(redis.url)
    client = connect(limiter)
    await asyncio.gather(*(limiter.hit("other", MINUTE) for _ in range(20)))  # many connections
    for outage in (1, 2):
        redis.stop()
        for _ in range(4):
            answer = await client.get("/api/models")
            assert (answer.status_code, "ratelimit" in answer.headers) == (200, False)
        assert limiter.uncounted == 4 * outage
        redis.start()
        quotas = await asyncio.gather(*(limiter.hit("other", MINUTE) for _ in range(20)))
        assert sum(quota is not None and quota.allowed for quota in quotas) == 2
        statuses = [(await client.get("/api/models")).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
    messages = [record.message for record in caplog.records if record.name == rate_limit.__name__]
    assert [re.sub(r"[,:].*", "", message) for message in messages] == [
        "RATE_LIMIT_STORAGE is down",
        "RATE_LIMIT_STORAGE is up again",
    ] * 2


async def test_requests_are_refused_while_redis_is_down_if_so_configured(
    redis: RedisServer, limiter_for: MakeLimiter, connect: Connect
) -> None:
    redis.stop()
    limiter = limiter_for(redis.url, rate_limit_fail_closed=True)
    answer = await connect(limiter).get("/api/models")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "store is down" in answer.json()["error"]
    assert (await connect(limiter).get("/api/health")).status_code == 200
    with pytest.raises(RateLimiterDown):
        await FailureLimiter(limiter, "1/minute").hit("192.0.2.1")


async def test_a_hung_redis_delays_only_one_request(
    redis: RedisServer, limiter_for: MakeLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit, "STORE_RETRY_S", 60)
    limiter = limiter_for(redis.url)
    assert await limiter.hit("ci", MINUTE)
    redis.signal(signal.SIGSTOP)
    monkeypatch.setattr(redis_store, "TIMEOUT_S", 0.1)
    assert await limiter.hit("ci", MINUTE) is None
    monkeypatch.setattr(redis_store, "TIMEOUT_S", 20)
    async with asyncio.timeout(5):
        assert await limiter.hit("ci", MINUTE) is None
    redis.signal(signal.SIGCONT)


async def test_a_frozen_redis_delays_no_request_for_longer_than_its_limit(
    redis: RedisServer, limiter_for: MakeLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit, "STORE_RETRY_S", 0)
    monkeypatch.setattr(redis_store, "TIMEOUT_S", 0.5)
    limiter = limiter_for(redis.url)

    async def hit(count: int) -> None:
        async with asyncio.timeout(0.9):
            await asyncio.gather(*(limiter.hit("ci", MINUTE) for _ in range(count)))

    await hit(8)
    redis.signal(signal.SIGSTOP)
    for count in (1, 40, 1):  # on open connections, then on those still to be opened
        await hit(count)
    # CPython 3.11's `wait_for` swallows a cancellation that arrives as its call returns.
    for microseconds in range(0, 1500, 50):
        monkeypatch.setattr(redis_store, "TIMEOUT_S", microseconds / 1e6)
        await hit(2)
    redis.signal(signal.SIGCONT)


async def test_a_function_far_from_its_store_counts_its_first_request_too(
    redis: RedisServer, limiter_for: MakeLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It connects for that, in more round trips than a server may wait for."""
    monkeypatch.setattr(redis_store, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(redis_store, "FUNCTION_TIMEOUT_S", 20)
    async with slow_link(redis.port, 0.06) as port:
        here = limiter_for(f"redis://127.0.0.1:{port}")
        assert await here.hit("ci", MINUTE) is None
        function = limiter_for(f"redis://127.0.0.1:{port}", aws_lambda_function_name="chat")
        quota = await function.hit("ci", MINUTE)
    assert quota
    assert quota.allowed


async def test_a_late_redis_answer_is_not_mistaken_for_another(
    redis: RedisServer, limiter_for: MakeLimiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit, "STORE_RETRY_S", 0)
    limiter = limiter_for(redis.url)
    for key in ("a", "b"):
        await limiter.hit(key, MINUTE)
        redis.signal(signal.SIGSTOP)
        monkeypatch.setattr(redis_store, "TIMEOUT_S", 0.1)
        assert await limiter.hit(key, MINUTE) is None
        monkeypatch.setattr(redis_store, "TIMEOUT_S", 20)
        redis.signal(signal.SIGCONT)
    quotas = [await limiter.hit("c", MINUTE) for _ in range(3)]
    assert [quota and quota.allowed for quota in quotas] == [True, True, False]


async def test_a_disconnect_during_a_redis_query_leaves_no_broken_connection(
    redis: RedisServer, limiter_for: MakeLimiter
) -> None:
    limiter = limiter_for(redis.url)
    await limiter.hit("ci", Rate(1000, 60))
    for turns in range(12):
        leaving = asyncio.create_task(limiter.hit("leaving", MINUTE))
        for _ in range(turns):
            await asyncio.sleep(0)
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving
        quota = await limiter.hit("ci", Rate(1000, 60))
        assert quota
        assert quota.remaining == 998 - turns


async def test_a_password_opens_redis_and_is_never_logged(
    start_redis: Callable[..., RedisServer],
    limiter_for: MakeLimiter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    server = start_redis("--requirepass", "hunter2hunter2")
    with_password = server.url.replace("//", "//:{}@")
    assert await limiter_for(with_password.format("hunter2hunter2")).hit("ci", MINUTE)
    assert await limiter_for(with_password.format("wrong-secret")).hit("ci", MINUTE) is None
    assert "RATE_LIMIT_STORAGE is down" in caplog.text
    assert "hunter2" not in caplog.text
    assert "wrong-secret" not in caplog.text


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("60/minute", (60, 60)),
        ("1/second", (1, 1)),
        ("5/hour", (5, 3600)),
        ("1000/day", (1000, 86_400)),
        ("off", None),
    ],
)
def test_rates_are_parsed(text: str, rate: tuple[int, int] | None) -> None:
    assert Settings.from_env({"RATE_LIMIT": text}).rate_limit == text
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("RATE_LIMIT", text) for text in ("0/minute", "60", "60/week", "-1/day", "60/minutes")],
        ("AUTH_FAILURE_LIMIT", "never"),
        ("RATE_LIMIT_STORAGE", "memcached://localhost"),
        ("RATE_LIMIT_STORAGE", "redis://:secret@host:port"),
        ("RATE_LIMIT_STORAGE", "redis://"),
    ],
)
def test_invalid_rates_and_stores_are_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is invalid") as caught:
        Settings.from_env({name: value})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["redis://localhost", "rediss://user:p%40ss@cache.example:6380/2", "redis://[::1]:6379"]
)
def test_every_form_of_redis_url_is_accepted(url: str) -> None:
    assert Settings.from_env({"RATE_LIMIT_STORAGE": url}).rate_limit_storage == url


def test_redis_is_imported_only_where_it_is_used() -> None:
    program = (
        "import asyncio, sys; from core.gate.hits import Rate; "
        "from core.gate.rates import RateLimiter; from core.settings.schema import Settings; "
        "asyncio.run(RateLimiter(Settings()).hit('ci', Rate(1, 1))); "
        "assert not {'limits', 'redis'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
