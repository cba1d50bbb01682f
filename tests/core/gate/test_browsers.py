import asyncio
import logging
import re
import socket
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from core.app import create_app
from core.contract.errors import CredentialsNeeded
from core.contract.responses import JSONResponse
from core.contract.retryable import RateLimited
from core.gate import browsers as security
from core.settings.environment import SettingsError
from core.settings.networks import Networks
from core.settings.schema import Settings

PAGE = "https://chat.example.com"


async def answer(request: Request) -> Response:
    return JSONResponse({"success": True}, headers={"x-request-id": "1"})


async def page(request: Request) -> Response:
    headers = {"content-security-policy": "default-src 'self'", "cache-control": "no-cache"}
    return JSONResponse({"success": True}, headers=headers)


async def denied(request: Request) -> Response:
    raise CredentialsNeeded("192.0.2.1")


async def limited(request: Request) -> Response:
    raise RateLimited("Too many requests", 7)


async def crash(request: Request) -> Response:
    raise ZeroDivisionError


def app(
    *, origins: tuple[str, ...] = (), hosts: tuple[str, ...] = (), behind_gateway: bool = False
) -> ASGIApp:
    """Return an application with all of its middleware, open to everybody."""
    settings = Settings(
        cors_origins=origins,
        allowed_hosts=hosts,
        aws_lambda_function_name="chat" if behind_gateway else "",
        anonymous_clients=Networks("0.0.0.0/0,::/0"),
        rate_limit="off",
    )
    endpoints = {"/": answer, "/page": page, "/denied": denied, "/limited": limited}
    routes = [Route(path, endpoint) for path, endpoint in {**endpoints, "/crash": crash}.items()]
    return create_app(routes, settings)


def client(base_url: str = "http://localhost", **options: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app(**options))
    return httpx.AsyncClient(transport=transport, base_url=base_url)


@pytest.mark.parametrize("path", ["/", "/denied", "/crash"])
async def test_every_answer_has_the_security_headers(path: str) -> None:
    headers = (await client().get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["cache-control"] == "no-store"
    assert "strict-transport-security" not in headers


async def test_an_answers_own_headers_are_kept() -> None:
    headers = (await client().get("/page")).headers
    assert headers.get_list("content-security-policy") == ["default-src 'self'"]
    assert headers.get_list("cache-control") == ["no-cache"]
    assert headers["x-content-type-options"] == "nosniff"


async def test_hsts_is_sent_over_tls_only() -> None:
    headers = (await client("https://localhost").get("/")).headers
    assert headers["strict-transport-security"] == "max-age=31536000"


def preflight(origin: str = PAGE, **headers: str) -> dict[str, str]:
    asked = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"Origin": origin, "Access-Control-Request-Method": "POST", **asked}


async def test_a_preflight_from_a_listed_origin_needs_no_key() -> None:
    wanted = "authorization, content-type, prefer, x-api-key, x-request-id"
    headers = preflight(Access_Control_Request_Headers=wanted)
    answer = await client(origins=(PAGE,)).options("/denied", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "Authorization" in answer.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in answer.headers


OPENAI = (  # openai-node 6, with all its options
    "authorization,content-type,openai-organization,openai-project,user-agent,x-stainless-arch,"
    "x-stainless-helper-method,x-stainless-lang,x-stainless-os,x-stainless-package-version,"
    "x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout"
)
ANTHROPIC = (
    "anthropic-beta,anthropic-dangerous-direct-browser-access,anthropic-version,content-type,"
    "x-api-key,x-stainless-helper,x-stainless-helper-method,x-stainless-lang,x-stainless-os,"
    "x-stainless-package-version,x-stainless-retry-count,x-stainless-timeout"
)


@pytest.mark.parametrize("wanted", [OPENAI, ANTHROPIC])
async def test_a_page_may_use_the_sdks(wanted: str) -> None:
    headers = preflight(Access_Control_Request_Headers=wanted)
    answer = await client(origins=(PAGE,)).options("/", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE


def test_aws_gateways_allow_the_same_headers() -> None:
    options = (Path(__file__).parents[3] / "deploy/options.js").read_text()
    listed = options.partition("const REQUEST_HEADERS = [")[2].partition("];")[0]
    assert re.findall(r'"([A-Za-z-]+)"', listed) == [*security.REQUEST_HEADERS]


async def test_a_public_page_may_be_allowed_into_a_private_network() -> None:
    headers = preflight(Access_Control_Request_Private_Network="true")
    answer = await client(origins=(PAGE,)).options("/", headers=headers)
    assert answer.headers["access-control-allow-private-network"] == "true"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (preflight("https://evil.example"), "Disallowed CORS origin"),
        (preflight("null"), "Disallowed CORS origin"),
        (preflight(f"{PAGE}.evil.example"), "Disallowed CORS origin"),
        (preflight(PAGE.replace("https", "http")), "Disallowed CORS origin"),
        (preflight(Access_Control_Request_Method="DELETE"), "Disallowed CORS method"),
        (preflight(Access_Control_Request_Headers="x-evil"), "Disallowed CORS headers"),
    ],
)
async def test_other_preflights_are_refused_in_the_usual_shape(
    headers: dict[str, str], reason: str
) -> None:
    answer = await client(origins=(PAGE,)).options("/", headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(reason)
    assert "CORS_ORIGINS" in answer.json()["error"]
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "status"), [("/", 200), ("/denied", 401), ("/limited", 429), ("/crash", 500)]
)
async def test_a_listed_origin_can_read_every_answer(path: str, status: int) -> None:
    answer = await client(origins=(PAGE,)).get(path, headers={"Origin": PAGE})
    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["vary"] == "Origin"
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    limits = {"RateLimit", "RateLimit-Policy", "Retry-After"}
    assert {"Preference-Applied", "X-Request-ID", "X-Should-Retry", *limits} == set(exposed)
    assert answer.headers.get("retry-after") == ("7" if status == 429 else None)


async def test_without_listed_origins_no_page_can_read() -> None:
    answer = await client().get("/", headers={"Origin": PAGE})
    assert "access-control-allow-origin" not in answer.headers
    refusal = await client().options("/", headers=preflight())
    assert refusal.status_code == 405
    assert not [name for name in refusal.headers if name.startswith("access-control-")]


async def test_any_origin_may_be_allowed_but_never_with_ambient_credentials() -> None:
    for answer in (
        await client(origins=("*",)).get("/", headers={"Origin": PAGE}),
        await client(origins=("*",)).options("/", headers=preflight()),
    ):
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers


def test_origins_are_checked_at_startup() -> None:
    text = f"{PAGE}, http://localhost:8080,http://[::1]:8080"
    origins = Settings.from_env({"CORS_ORIGINS": text}).cors_origins
    assert origins == (PAGE, "http://localhost:8080", "http://[::1]:8080")
    for wrong in ("null", PAGE + "/", "chat.example.com", "https://Chat.example.com", f"{PAGE},"):
        with pytest.raises(SettingsError, match="CORS_ORIGINS is invalid: expected origins"):
            Settings.from_env({"CORS_ORIGINS": wrong})


async def status_for(host: str, **options: Any) -> int:
    answer = await client(**options).get("/", headers={"Host": host})
    if answer.status_code != 200:
        assert "ALLOWED_HOSTS" in answer.json()["error"]
    return answer.status_code


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:5000",
        "localhost.",
        "ollama.localhost",
        "127.0.0.1:5000",
        "192.168.1.20",
        "[::1]:5000",
        "[2001:db8::1]",
        socket.gethostname(),
        f"{socket.gethostname().upper()}:5000",
    ],
)
async def test_this_machines_names_and_addresses_are_allowed(host: str) -> None:
    assert await status_for(host) == 200
    assert await status_for(host, hosts=("api.example.com",)) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evillocalhost",
        "127.0.0.1.evil.example",
        "localhost:5000@evil.example",
        "localhost:x",
        "localhost, evil.example",
        "[::1].evil.example",
        "[::1",
        "2130706433",
        "0x7f.0.0.1",
        "::1",
        "",
        ":5000",
    ],
)
async def test_other_names_are_refused(host: str) -> None:
    assert await status_for(host) == 400


async def test_listed_names_and_their_subdomains_are_allowed() -> None:
    hosts = ("Api.example.com", "*.corp.example")
    assert await status_for("api.example.com:443", hosts=hosts) == 200
    assert await status_for("gpu.corp.example", hosts=hosts) == 200
    assert await status_for("corp.example", hosts=hosts) == 400
    assert await status_for("evilcorp.example", hosts=hosts) == 400
    assert await status_for("evil.example", hosts=("*",)) == 200


async def test_a_request_must_have_exactly_one_host() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nobody reads")

    names: tuple[list[bytes], ...] = ([], [b"localhost", b"evil.example"])
    for hosts in names:
        headers = [(b"host", host) for host in hosts]
        scope = {"type": "http", "method": "GET", "path": "/", "scheme": "http", "headers": headers}
        await app()(scope, receive, send)
    assert [message["status"] for message in sent if "status" in message] == [400, 400]


async def test_a_gateways_names_are_refused_unless_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])  # a function sets up its own log
    host = "id.execute-api.eu-central-1.amazonaws.com"
    assert await status_for(host, behind_gateway=True) == 200
    assert await status_for(host, behind_gateway=True, hosts=("api.example.com",)) == 400
    assert (
        await status_for("api.example.com", behind_gateway=True, hosts=("api.example.com",)) == 200
    )


def test_hosts_are_checked_at_startup() -> None:
    assert Settings.from_env({"ALLOWED_HOSTS": "a.example, *.b.example"}).allowed_hosts == (
        "a.example",
        "*.b.example",
    )
    for wrong in ("https://a.example", "a.example:443", "*example", "a b", "a.example/"):
        with pytest.raises(SettingsError, match="ALLOWED_HOSTS is invalid: expected names"):
            Settings.from_env({"ALLOWED_HOSTS": wrong})


@pytest.mark.parametrize("name", ["ALLOWED_CLIENTS", "ANONYMOUS_CLIENTS", "TRUSTED_PROXIES"])
@pytest.mark.parametrize("value", ["10.0.0.1/8", "localhost", "*", "10.0.0.0/8;::1"])
def test_networks_are_checked_at_startup(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is invalid: expected networks such as "):
        Settings.from_env({name: value})


async def test_no_request_waits_long_for_this_machines_full_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lookups = 0
    known = threading.Event()

    def slow() -> str:
        nonlocal lookups
        lookups += 1
        known.wait(60)
        return "Machine.example.com"

    monkeypatch.setattr(socket, "getfqdn", slow)
    monkeypatch.setattr(security, "FULL_NAME_TIMEOUT_S", 0.1)
    http = client()

    async def status(host: str) -> int:
        return (await http.get("/", headers={"Host": host})).status_code

    async with asyncio.timeout(20):
        assert await status(socket.gethostname()) == 200
        statuses = await asyncio.gather(*(status("machine.example.com") for _ in range(50)))
        assert set(statuses) == {400}
        known.set()
        while await status("machine.example.com") != 200:
            await asyncio.sleep(0.01)
    assert await status("evil.example.com") == 400
    assert lookups == 1
