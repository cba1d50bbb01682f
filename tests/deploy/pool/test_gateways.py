"""Two gateways and one Redis behind HAProxy, in front of the pool: they share their limits."""

import asyncio
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from core.keys.editing import create, revoke
from tests.deploy.pool.test_pool import MODELS, configure
from tests.fake_ollama import Connection, FakeOllama, Request, tokens
from tests.processes import running, wait_for
from tests.programs import ROOT, free_ports, program, started

CHAT = {"message": "안녕", "model": "smollm2:135m"}
EACH_GPU = 2
NO_PROXY_HEADERS = "--no-proxy-headers"
PATIENT = """
from core.gate import redis_hits
from handlers.__main__ import main

redis_hits.TIMEOUT_S = 20
main([])
"""
"""The gateway, for which no busy machine's Redis is down."""


class Busy:
    """An answer that takes a moment, and counts how many run at once."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._answer = tokens(pace_s=0.02)

    async def __call__(self, connection: Connection, request: Request) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self._answer(connection, request)
        finally:
            self.now -= 1


@dataclass
class Site:
    url: str
    gateways: list[str]
    keys: Path
    gpus: list[Busy]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        machines = [await stack.enter_async_context(FakeOllama(models)) for models in MODELS]
        gpus = [Busy() for _ in machines]
        for machine, gpu in zip(machines, gpus, strict=True):
            machine.default = gpu
        pool_port, api_port, redis_port = free_ports(3)
        redis = program("redis-server", "apt install redis-server")
        bound = ("--bind", "127.0.0.1", "--port", str(redis_port))
        stack.enter_context(started([redis, *bound, "--save", "", "--dir", str(tmp_path)], {}))

        site = Site(f"http://127.0.0.1:{api_port}", [], tmp_path / "keys.json", gpus)
        environ = {
            "OLLAMA_BASE_URL": f"http://127.0.0.1:{pool_port}",
            "RATE_LIMIT_STORAGE": f"redis://127.0.0.1:{redis_port}",
            "RATE_LIMIT_FAIL_CLOSED": "true",
            "TRUSTED_PROXIES": "127.0.0.1/32",
            "API_KEYS_FILE": str(site.keys),
            "MAX_CONCURRENT": "8",
            "MAX_QUEUE": "500",
            "HOST": "127.0.0.1",
            "PORT": "0",
            "WEB_PORT": "0",
            "LOG_FORMAT": "console",
        }
        for _ in range(2):
            process = stack.enter_context(running("-c", PATIENT, **environ))
            site.gateways.append(wait_for(process.stdout, "Listening for the API on "))
        pool = configure(tmp_path, pool_port, machines, {"maxconn 4": f"maxconn {EACH_GPU}"})
        haproxy = program("haproxy", "apt install haproxy")
        files = ("-f", str(pool), "-f", str(front(tmp_path, api_port, site.gateways)))
        await asyncio.to_thread(subprocess.run, [haproxy, "-c", *files], check=True)
        stack.enter_context(started([haproxy, *files], {}))
        transport = httpx.AsyncHTTPTransport(retries=8)
        async with (
            httpx.AsyncClient(base_url=site.url, transport=transport) as client,
            asyncio.timeout(20),
        ):
            while (await client.get("/api/health")).status_code != 200:
                await asyncio.sleep(0.05)
        yield site


def front(folder: Path, port: int, gateways: list[str]) -> Path:
    """Write the operator's configuration with these addresses."""
    text = (ROOT / "deploy/haproxy/gateways.cfg").read_text("utf-8")
    changes = {"127.0.0.1:8000": f"127.0.0.1:{port}"}
    for number, url in enumerate(gateways, 1):
        changes[f"127.0.0.1:500{number}\n"] = f"{httpx.URL(url).netloc.decode()}\n"
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "gateways.cfg"
    path.write_text(text, "utf-8")
    return path


def client(url: str, key: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    headers = {"X-API-Key": key}
    return httpx.AsyncClient(
        base_url=url, headers=headers, trust_env=False, timeout=60, limits=limits
    )


async def test_a_rate_is_exact_over_all_gateways_and_no_gpu_has_more_than_its_bound(
    site: Site,
) -> None:
    key = await asyncio.to_thread(create, site.keys, "many", rate="60/minute")
    async with client(site.url, key) as api:
        few_at_once = asyncio.Semaphore(12)  # three times as many as the GPUs may have

        async def call() -> httpx.Response:
            async with few_at_once:
                return await api.post("/api/chat", json=CHAT)

        answers = await asyncio.gather(*(call() for _ in range(130)))
    statuses = Counter(answer.status_code for answer in answers)
    unexpected = {answer.text for answer in answers if answer.status_code not in {200, 429}}
    assert statuses == {200: 60, 429: 70}, unexpected
    assert [gpu.most for gpu in site.gpus] == [0, EACH_GPU, EACH_GPU]
    for gateway in site.gateways:
        async with client(gateway, key) as api:
            figures = (await api.get("/metrics")).text
            assert 'path="/api/chat",status="200"' in figures, "both have worked"
            assert (await api.post("/api/chat", json=CHAT)).status_code == 429


async def test_a_key_that_is_revoked_is_refused_by_all(site: Site) -> None:
    key = await asyncio.to_thread(create, site.keys, "short-lived")
    for gateway in site.gateways:
        async with client(gateway, key) as api:
            assert (await api.get("/api/models")).status_code == 200
    await asyncio.to_thread(revoke, site.keys, "short-lived")
    for gateway in site.gateways:
        async with client(gateway, key) as api, asyncio.timeout(10):
            while (await api.get("/api/models")).status_code != 401:
                await asyncio.sleep(0.1)


async def test_the_gateways_believe_no_caller_and_hide_their_figures(site: Site) -> None:
    key = create(site.keys, "ci")
    async with httpx.AsyncClient(base_url=site.url) as api:
        for path in ("/metrics", "/%6detrics/"):
            hidden = await api.get(path, headers={"X-API-Key": key})
            assert (hidden.status_code, hidden.json()["success"]) == (404, False)
            assert hidden.json()["error"].startswith("The figures are not served here")
        for address in ("127.0.0.1", "192.0.2.1"):
            headers = {"X-Forwarded-For": address}
            assert (await api.get("/api/models", headers=headers)).status_code == 401
        headers = {"X-API-Key": key}
        async with asyncio.timeout(20):
            while (await api.get("/api/models", headers=headers)).status_code != 200:
                await asyncio.sleep(0.1)  # until both gateways have read the new key


async def test_workers_that_would_each_allow_the_whole_rate_are_refused() -> None:
    (port,) = free_ports(1)
    arguments = ("--host", "127.0.0.1", "--port", str(port), "--workers", "2")
    with running("-m", "uvicorn", "handlers.asgi:app", *arguments) as process:
        wait_for(process.stderr, "Several workers need RATE_LIMIT_STORAGE=redis://")
        await asyncio.to_thread(process.wait, 20)


async def test_workers_whose_uvicorn_would_believe_any_proxy_are_refused() -> None:
    (port,) = free_ports(1)
    arguments = ("--host", "127.0.0.1", "--port", str(port), "--workers", "2")
    environ = {"RATE_LIMIT_STORAGE": "redis://127.0.0.1:1"}
    with running("-m", "uvicorn", "handlers.asgi:app", *arguments, **environ) as process:
        wait_for(process.stderr, f"Several workers need uvicorn's option {NO_PROXY_HEADERS}")
        await asyncio.to_thread(process.wait, 20)


@pytest.mark.parametrize(
    ("share_queue", "own"), [("functions", "MAX_CONCURRENT (4), MAX_QUEUE, "), ("always", "")]
)
async def test_workers_that_share_their_rates_say_what_they_do_not_share(
    share_queue: str, own: str
) -> None:
    (port,) = free_ports(1)
    arguments = ("--host", "127.0.0.1", "--port", str(port), "--workers", "2", NO_PROXY_HEADERS)
    environ = {"RATE_LIMIT_STORAGE": "redis://127.0.0.1:1", "SHARE_QUEUE": share_queue}
    with running("-m", "uvicorn", "handlers.asgi:app", *arguments, **environ) as process:
        wait_for(process.stderr, f"This is one of several workers: {own}/api/stats and /metrics")
