"""MONITOR_CLIENTS: probes and scrapes without a key, outside the rate."""

import httpx

from core.settings.networks import Networks
from tests.conftest import Serve

NOBODY = Networks("none")
PROBES = ("/api/ready", "/api/ready/", "/metrics", "/metrics/")


async def test_a_monitors_probes_need_no_key_and_are_not_counted(serve: Serve) -> None:
    url = await serve(rate_limit="2/minute", anonymous_clients=NOBODY)
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        for path in PROBES * 20:
            answer = await client.get(path)
            assert answer.status_code == 200, path
            assert "ratelimit" not in answer.headers
        assert (await client.get("/metrics", headers={"X-API-Key": "wrong"})).status_code == 401
        assert (await client.get("/api/models")).status_code == 401
        assert (await client.get("/api/stats")).status_code == 401


async def test_a_monitors_other_requests_are_counted(serve: Serve) -> None:
    url = await serve(rate_limit="2/minute")
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        for path in PROBES:
            assert (await client.get(path)).status_code == 200
        statuses = [(await client.get("/api/models")).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
        assert (await client.get("/api/ready")).status_code == 200


async def test_others_than_monitors_need_a_key_and_are_counted(serve: Serve) -> None:
    url = await serve(rate_limit="2/minute", monitor_clients=NOBODY)
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        statuses = [(await client.get("/metrics")).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]
    url = await serve()
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        # A proxy on this machine that is not trusted: its clients are unknown.
        stranger = {"X-Forwarded-For": "127.0.0.1"}
        for path in PROBES:
            assert (await client.get(path, headers=stranger)).status_code == 401


async def test_a_monitor_that_may_not_call_at_all_is_refused(serve: Serve) -> None:
    url = await serve(allowed_clients=Networks("192.0.2.0/24"))
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        assert (await client.get("/metrics")).status_code == 403
