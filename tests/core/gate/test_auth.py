import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jwt
import msgspec
import pytest
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from core.app import create_app
from core.context import Caller
from core.contract.responses import JSONResponse
from core.keys.editing import create
from core.settings.schema import Settings

Gate = Callable[..., httpx.AsyncClient]
SECRET = "0123456789abcdef0123456789abcdef"  # noqa: S105
STRANGER = "192.0.2.1"


@pytest.fixture
def key(tmp_path: Path) -> str:
    limits: dict[str, Any] = {"rate": "5/minute", "concurrent": 2, "models": ("qwen*",)}
    return create(tmp_path / "keys.json", "ci", **limits)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Connect from an address to an application that answers with the caller."""

    async def tell(request: Request) -> JSONResponse:
        return JSONResponse(Caller.of(request.scope))

    routes = [Route("/{path:path}", tell, methods=["GET", "POST"])]
    defaults = {"API_KEYS_FILE": str(tmp_path / "keys.json"), "RATE_LIMIT": "off"}
    apps: dict[str, ASGIApp] = {}

    def gate(address: str | None = "127.0.0.1", **values: str) -> httpx.AsyncClient:
        environ = {**defaults, **{name.upper(): value for name, value in values.items()}}
        settings = Settings.from_env(environ)
        app = apps.setdefault(repr(environ), create_app(routes, settings))
        client = (address, 1234) if address else None
        transport = httpx.ASGITransport(app, client=client)  # type: ignore[arg-type]
        return httpx.AsyncClient(transport=transport, base_url="http://localhost")

    return gate


def token(**claims: Any) -> str:
    return jwt.encode({"sub": "ann", "exp": time.time() + 60, **claims}, SECRET)


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
async def test_local_clients_need_no_credentials(gate: Gate, address: str) -> None:
    answer = await gate(address).get("/api/models")
    assert answer.status_code == 200
    assert answer.json()["id"].startswith("address:")


@pytest.mark.parametrize("address", [STRANGER, "10.0.0.1", "2001:db8::1", None])
async def test_a_remote_client_without_credentials_learns_what_to_do(
    gate: Gate, address: str | None
) -> None:
    answer = await gate(address).post("/api/chat")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json().keys() == {"success", "error"}
    error = answer.json()["error"]
    assert "Authorization: Bearer" in error
    assert "X-API-Key" in error
    assert "python -m core.keys create" in error
    assert (address or "TRUSTED_PROXIES") in error


async def test_open_mode_admits_everyone(gate: Gate) -> None:
    for address in (STRANGER, "2001:db8::1", None):
        answer = await gate(address, anonymous_clients="0.0.0.0/0,::/0").get("/api/models")
        assert answer.status_code == 200


async def test_anonymous_access_can_be_disabled(gate: Gate, key: str) -> None:
    local = gate("127.0.0.1", anonymous_clients="none")
    assert (await local.get("/api/models")).status_code == 401
    assert (await local.get("/api/models", headers=bearer(key))).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer {}"},
        {"Authorization": "bearer   {}"},
        {"X-API-Key": "{}"},
        {"X-API-Key": "{}", "Authorization": "Bearer {}"},
        {"X-API-Key": "{}", "Authorization": "Basic dXNlcjpwYXNz"},
    ],
)
async def test_a_key_gives_the_caller_its_name_and_limits(
    gate: Gate, key: str, headers: dict[str, str]
) -> None:
    sent = {name: value.format(key) for name, value in headers.items()}
    answer = await gate(STRANGER).get("/api/models", headers=sent)
    client = msgspec.json.decode(answer.content, type=Caller)
    assert client == Caller(
        id="key:ci",
        name="ci",
        address=STRANGER,
        rate="5/minute",
        concurrent=2,
        models=("qwen*",),
    )


async def test_a_token_identifies_the_caller_by_its_subject(gate: Gate, key: str) -> None:
    client = gate(STRANGER, jwt_secret=SECRET)
    answer = await client.get("/api/models", headers=bearer(token()))
    assert (answer.json()["id"], answer.json()["name"]) == ("jwt:ann", "ann")
    assert (await client.get("/api/models", headers=bearer(key))).json()["id"] == "key:ci"


async def test_a_key_for_a_gateway_is_not_taken_for_a_token(gate: Gate, tmp_path: Path) -> None:
    text = create(tmp_path / "keys.json", "gateway", alphanumeric=True)
    client = gate(STRANGER, jwt_secret=SECRET)
    answer = await client.get("/api/models", headers={"X-API-Key": text})
    assert answer.json()["id"] == "key:gateway"


@pytest.mark.parametrize("address", [STRANGER, "127.0.0.1"])
@pytest.mark.parametrize("credential", ["x", "owa_00000000_x", "owa_", "a.b.c", "ключ"])
async def test_wrong_credentials_are_refused_from_any_address(
    gate: Gate, address: str, credential: str
) -> None:
    headers = {b"X-API-Key": credential.encode()}
    answer = await gate(address).get("/api/models", headers=headers)
    assert answer.status_code == 401


async def test_a_401_states_its_cause_as_in_the_rfc(gate: Gate, key: str) -> None:
    client = gate(STRANGER, jwt_secret=SECRET)
    answer = await client.get("/api/models", headers=bearer(token(exp=0)))
    assert answer.headers["www-authenticate"] == (
        'Bearer error="invalid_token", error_description="the token has expired"'
    )
    assert "the token has expired" in answer.json()["error"]
    answer = await client.get("/api/models", headers={"X-API-Key": key[:-1]})
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    assert key[:-1] not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"X-API-Key": ""},
    ],
)
async def test_other_schemes_and_empty_values_do_not_count_as_credentials(
    gate: Gate, headers: dict[str, str]
) -> None:
    assert (await gate("127.0.0.1").get("/api/models", headers=headers)).status_code == 200
    answer = await gate(STRANGER).get("/api/models", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_multiple_credentials_are_refused(gate: Gate, key: str) -> None:
    headers = [("X-API-Key", key), ("Authorization", "Bearer other")]
    answer = await gate(STRANGER).get("/api/models", headers=headers)
    assert answer.status_code == 400
    assert "several different credentials" in answer.json()["error"]
    headers = [("X-API-Key", key), ("X-API-Key", "other")]
    assert (await gate().get("/api/models", headers=headers)).status_code == 400


async def test_addresses_outside_the_firewall_get_nothing(gate: Gate, key: str) -> None:
    client = gate(STRANGER, allowed_clients="10.0.0.0/8,127.0.0.1")
    for path in ("/api/health", "/api/models", "/nowhere"):
        answer = await client.get(path, headers=bearer(key))
        assert answer.status_code == 403
        assert answer.json()["error"] == "Requests from 192.0.2.1 are not allowed"
    assert (await gate(None, allowed_clients="10.0.0.0/8").get("/api/health")).status_code == 403
    inside = gate("10.0.0.1", allowed_clients="10.0.0.0/8")
    assert (await inside.get("/api/models", headers=bearer(key))).status_code == 200


@pytest.mark.parametrize("path", ["/api/health", "/api/health/"])
async def test_health_is_public(gate: Gate, path: str) -> None:
    stranger = gate(STRANGER)
    assert (await stranger.get(path)).json()["id"] == "address:192.0.2.1"
    assert (await stranger.head(path)).status_code == 200
    assert (await stranger.get(path, headers=bearer("wrong"))).status_code == 200
    assert (await stranger.post(path)).status_code == 401


@pytest.mark.parametrize(
    "path", ["/statics", "/static", "/api/healthy", "/api/health/x", "//api/health"]
)
async def test_nothing_else_is_public(gate: Gate, path: str) -> None:
    answer = await gate(STRANGER).get(httpx.URL("http://localhost", path=path))
    assert answer.status_code == 401


async def test_failures_are_limited_while_valid_credentials_pass(gate: Gate, key: str) -> None:
    client = gate(STRANGER, auth_failure_limit="2/minute")
    codes = [
        (await client.get("/api/models", headers=bearer("owa_guess"))).status_code for _ in range(4)
    ]
    assert codes == [401, 401, 429, 429]
    assert (await client.get("/api/models", headers=bearer(key))).status_code == 200
    assert (await client.get("/api/models")).status_code == 401


async def test_missing_credentials_are_no_failure(gate: Gate) -> None:
    client = gate(STRANGER, auth_failure_limit="1/minute")
    for headers in ({}, {}, bearer("owa_guess")):
        assert (await client.get("/api/models", headers=headers)).status_code == 401


async def test_failures_are_counted_per_ipv6_network(gate: Gate) -> None:
    codes = []
    for address in ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"):
        client = gate(address, auth_failure_limit="1/minute")
        codes.append((await client.get("/api/models", headers=bearer("owa_guess"))).status_code)
    assert codes == [401, 429, 401]


async def test_an_unreachable_issuer_does_not_count_as_a_client_failure(gate: Gate) -> None:
    issuer = {"jwt_jwks_url": "http://127.0.0.1:1/keys", "auth_failure_limit": "1/minute"}
    client = gate(STRANGER, **issuer)
    for _ in range(2):
        answer = await client.get("/api/models", headers=bearer(token()))
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "10"
    answer = await client.get("/api/models", headers=bearer("owa_guess"))
    assert answer.status_code == 401


def test_rarely_needed_modules_are_not_imported() -> None:
    code = "import sys, core.gate.auth; print([m for m in sys.argv[1:] if m in sys.modules])"
    modules = ("jwt", "cryptography", "argparse", "httpcore")
    command = [sys.executable, "-c", code, *modules]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "[]\n"
