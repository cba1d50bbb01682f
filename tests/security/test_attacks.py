"""Attacks on the gate by header, key, token and page; `corpus` has those at byte level."""

import asyncio
import base64
import hmac
import json
import time
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.routing import Route

from core.app import create_app
from core.contract.responses import JSONResponse
from core.keys.editing import create
from core.keys.records import digest
from core.serving.application import Application
from core.settings.schema import Settings
from tests.security.corpus import ORIGINS, SPOOFS

ATTACKER = "192.0.2.66"
SECRET = "0123456789abcdef0123456789abcdef"  # noqa: S105


async def inside(request: Request) -> JSONResponse:
    """Answer with something no attacker may see."""
    return JSONResponse({"inside": request.url.path})


def gate(**environ: str) -> Application:
    """Return the whole gate, without anonymous access unless `environ` allows it."""
    values = Settings.from_env({"AUTH_FAILURE_LIMIT": "off", "RATE_LIMIT": "off", **environ})
    return create_app([Route("/{path:path}", inside, methods=["GET", "POST"])], values)


def client(address: str = ATTACKER, **environ: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(gate(**environ), client=(address, 1234))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


# Addresses


@pytest.mark.parametrize(("name", "value"), SPOOFS)
@pytest.mark.parametrize("proxies", ["none", "10.0.0.0/8"])
async def test_no_header_makes_a_stranger_local(name: str, value: str, proxies: str) -> None:
    answer = await client(TRUSTED_PROXIES=proxies).get("/api/models", headers={name: value})
    assert answer.status_code == 401


@pytest.mark.parametrize(("name", "value"), SPOOFS)
async def test_no_header_gets_a_stranger_past_the_firewall(name: str, value: str) -> None:
    firewalled = client(ALLOWED_CLIENTS="127.0.0.0/8,::1")
    answer = await firewalled.get("/api/health", headers={name: value})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "forged",
    ["127.0.0.1", "127.0.0.1,10.0.0.1", "::1, ,", "127.0.0.1\t", "127.0.0.1;", ",,,,", "a" * 4000],
)
async def test_entries_forged_before_the_proxys_own_are_ignored(forged: str) -> None:
    for proxy, proxies in (("10.0.0.1", "10.0.0.0/8"), ("127.0.0.1", "127.0.0.1")):
        headers = {"X-Forwarded-For": f"{forged}, {ATTACKER}"}
        answer = await client(proxy, TRUSTED_PROXIES=proxies).get("/api/models", headers=headers)
        assert answer.status_code == 401


@pytest.mark.parametrize("entry", ["127.0.0.1", "unknown", "127.0.0.1:x", "[::1", "_x"])
async def test_entries_no_honest_proxy_writes_are_not_local(entry: str) -> None:
    answer = await client("10.0.0.1", TRUSTED_PROXIES="10.0.0.0/8").get(
        "/api/models", headers={"X-Forwarded-For": entry}
    )
    assert answer.status_code == 401


async def test_an_undeclared_local_proxy_opens_nothing() -> None:
    headers = {"X-Forwarded-For": ATTACKER}
    assert (await client("127.0.0.1").get("/api/models", headers=headers)).status_code == 401


# Keys


async def test_keys_are_compared_in_constant_time_and_by_their_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.json"
    key = create(path, "ci")
    compared: list[tuple[Any, Any]] = []

    def compare_digest(stored: Any, sent: Any) -> bool:
        compared.append((stored, sent))
        return original(stored, sent)

    original = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare_digest)
    attacker = client(API_KEYS_FILE=str(path))
    guess = f"{key[:-1]}{'A' if key[-1] != 'A' else 'B'}"
    for sent, status in ((guess, 401), (key, 200)):
        answer = await attacker.get("/api/models", headers={"X-API-Key": sent})
        assert answer.status_code == status
    assert compared == [(digest(key), digest(guess)), (digest(key), digest(key))]


async def test_stored_values_are_not_valid_credentials(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    create(path, "ci")
    [stored] = json.loads(path.read_text("utf-8"))
    attacker = client(API_KEYS_FILE=str(path))
    for sent in (stored["sha256"], f"owa_{stored['id']}_{stored['sha256']}", "owa_ci", "ci"):
        answer = await attacker.get("/api/models", headers={"X-API-Key": sent})
        assert answer.status_code == 401


# Tokens


def part(value: object) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged(header: object, claims: object = None, key: bytes = b"", signature: str = "") -> str:
    """Return a token with any header, HMAC-signed if there is a `key`."""
    claims = {"sub": "admin", "exp": time.time() + 60} if claims is None else claims
    text = f"{part(header)}.{part(claims)}"
    if key:
        signature = part(hmac.digest(key, text.encode(), "sha256"))
    return f"{text}.{signature}"


async def refused(attacker: httpx.AsyncClient, token: str) -> bool:
    answer = await attacker.get("/api/models", headers={"Authorization": f"Bearer {token}"})
    assert answer.headers["www-authenticate"].startswith('Bearer error="invalid_token"')
    return answer.status_code == 401


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None, [], {}, 0, "HS256 "])
async def test_an_unsigned_token_is_refused(alg: object) -> None:
    attacker = client(JWT_SECRET=SECRET)
    assert await refused(attacker, forged({"alg": alg, "typ": "JWT"}))
    assert await refused(attacker, forged({"alg": alg}, signature="AAAA"))
    assert await refused(attacker, forged({"typ": "JWT"}))


async def test_a_public_key_is_not_accepted_as_a_secret(tmp_path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    path = tmp_path / "key.pem"
    for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER):
        data = key.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
        if encoding is serialization.Encoding.PEM:
            path.write_bytes(data)
        attacker = client(JWT_PUBLIC_KEY_FILE=str(path))
        for secret in (data, data.strip(), data.replace(b"\n", b"\r\n")):
            for alg in ("HS256", "RS256", "none"):
                assert await refused(attacker, forged({"alg": alg}, key=secret))


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": {"kty": "oct", "k": part(b"attacker" * 4)}},
        {"jku": "http://127.0.0.1:1/keys"},
        {"x5u": "http://127.0.0.1:1/cert"},
        {"x5c": ["AAAA"]},
        {"kid": "../../../../dev/null"},
        {"kid": "' UNION SELECT 'x"},
        {"kid": ["list"]},
        {"kid": None},
    ],
)
async def test_a_token_cannot_bring_its_own_key(header: dict[str, Any]) -> None:
    attacker = client(JWT_SECRET=SECRET)
    assert await refused(attacker, forged({"alg": "HS256", **header}, key=b"attacker" * 4))


@pytest.mark.parametrize(
    "header", [{"crit": ["exp"]}, {"crit": []}, {"crit": "x"}, {"b64": False, "crit": ["b64"]}]
)
async def test_unknown_critical_headers_are_refused(header: dict[str, Any]) -> None:
    token = forged({"alg": "HS256", **header}, key=SECRET.encode())
    assert await refused(client(JWT_SECRET=SECRET), token)


async def test_foreign_expired_and_unbounded_tokens_are_refused() -> None:
    attacker = client(JWT_SECRET=SECRET, JWT_AUDIENCE="api", JWT_ISSUER="issuer")
    good = {"sub": "ann", "exp": time.time() + 60, "aud": "api", "iss": "issuer"}
    headers = {"Authorization": f"Bearer {jwt.encode(good, SECRET)}"}
    assert (await attacker.get("/api/models", headers=headers)).status_code == 200
    for change in (
        {"exp": time.time() - 3600},
        {"exp": None},
        {"aud": "other"},
        {"aud": None},
        {"aud": {"api": 1}},
        {"iss": "issuer2"},
        {"iss": None},
        {"sub": None},
        {"sub": {"$ne": ""}},
    ):
        assert await refused(attacker, forged({"alg": "HS256"}, good | change, SECRET.encode()))


@pytest.mark.parametrize(
    "token",
    [
        f"{part(b'[' * 5000)}.e30.AA",
        forged({"alg": "HS256"}, key=SECRET.encode(), claims={"a": [[[[]]]]}),
        forged({"alg": "HS256", "n": 10**4000}),
        "a.b.c",
        "..",
        "a.b.c.d.e",
        f"{part({'alg': 'HS256'})}.{'A' * 100_000}.AA",
        "\xff.\xff.\xff",
        part(b'{"alg":"HS256","alg":"none"}') + ".e30.",
    ],
)
async def test_monster_tokens_are_refused_like_any_other(token: str) -> None:
    attacker = client(JWT_SECRET=SECRET)
    headers = {b"X-API-Key": token.encode("latin-1")}
    assert (await attacker.get("/api/models", headers=headers)).status_code == 401


@given(token=st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), min_size=1))
@settings(max_examples=100, deadline=None)
def test_no_credential_causes_a_crash(token: str) -> None:
    async def attempt() -> int:
        headers = {b"X-API-Key": token.encode("latin-1")}
        return (await client(JWT_SECRET=SECRET).get("/api/models", headers=headers)).status_code

    assert asyncio.run(attempt()) == 401


# Pages


@pytest.mark.parametrize("origins", ["", "https://chat.example.com", "*"])
async def test_a_preflight_reaches_nothing(origins: str) -> None:
    attacker = client(CORS_ORIGINS=origins, ANONYMOUS_CLIENTS="0.0.0.0/0")
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    assert "inside" not in (await attacker.options("/api/chat", headers=headers)).text


async def test_what_only_looks_like_a_preflight_needs_a_key() -> None:
    attacker = client(CORS_ORIGINS="*")
    for headers in (
        {"Origin": "https://evil.example"},
        {"Access-Control-Request-Method": "POST"},
        {},
    ):
        assert (await attacker.options("/api/chat", headers=headers)).status_code == 401
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    assert (await attacker.post("/api/chat", headers=headers)).status_code == 401


@pytest.mark.parametrize("origin", ORIGINS)
async def test_a_foreign_page_reads_nothing(origin: str) -> None:
    local = client("127.0.0.1", CORS_ORIGINS="https://chat.example.com")
    answer = await local.get("/api/models", headers={"Origin": origin})
    assert "access-control-allow-origin" not in answer.headers
