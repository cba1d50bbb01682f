import asyncio
import json
import time
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from core.contract.errors import InvalidCredentials
from core.contract.retryable import JWKSUnavailable
from core.gate import tokens as core_jwt
from core.gate.tokens import PublishedKeys, TokenVerifier
from core.settings.environment import SettingsError
from core.settings.schema import Settings

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
SECRET = "0123456789abcdef0123456789abcdef"  # noqa: S105
URL = "https://issuer.example/jwks.json"


@cache
def rsa_key(number: int = 0, size: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=size)


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def token(
    key: PrivateKey | str = SECRET, alg: str = "HS256", kid: str | None = None, **more: Any
) -> str:
    claims = {"sub": "ann", "exp": time.time() + 60, **more}
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key, algorithm=alg, headers={"kid": kid} if kid else None)


def pem(path: Path, key: PrivateKey) -> str:
    path.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return str(path)


def jwk(kid: str | None, key: PrivateKey, **members: Any) -> dict[str, Any]:
    if isinstance(key, rsa.RSAPrivateKey):
        public = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        public = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**public, **({"kid": kid} if kid else {}), **members}


def verifier(**settings: Any) -> TokenVerifier:
    found = TokenVerifier.from_settings(Settings(**settings))
    assert found
    return found


class Issuer(httpx.AsyncBaseTransport):
    """Publishes `keys`, unless it is made to fail."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.keys = list(keys)
        self.fetches = 0
        self.failure: httpx.Response | Exception | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert str(request.url) == URL
        self.fetches += 1
        await self.open.wait()
        if isinstance(self.failure, Exception):
            raise self.failure
        return self.failure or httpx.Response(200, json={"keys": self.keys})

    def verifier(self) -> TokenVerifier:
        return TokenVerifier(PublishedKeys(URL, self))


async def test_the_subject_identifies_the_caller() -> None:
    assert await verifier(jwt_secret=SECRET).verify(token()) == "ann"
    assert await verifier(jwt_secret=SECRET).verify(token(sub="안녕 auth0|7")) == "안녕 auth0|7"


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": 0}, "has expired"),
        ({"exp": None}, "not valid"),
        ({"exp": "tomorrow"}, "not valid"),
        ({"exp": 1e400}, "not valid"),
        ({"nbf": 2**33}, "not valid"),
        ({"sub": None}, "not valid"),
        ({"sub": ""}, "subject"),
        ({"sub": "a\r\nb"}, "subject"),
        ({"sub": "a\x1b[31m"}, "subject"),
        ({"sub": "a\u202eb"}, "subject"),
        ({"sub": "a" * 256}, "subject"),
        ({"aud": "somebody"}, "wrong audience"),
    ],
)
async def test_invalid_claims_are_refused(claims: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidCredentials, match=reason):
        await verifier(jwt_secret=SECRET).verify(token(**claims))


async def test_a_subject_must_be_text() -> None:
    text = jwt.api_jws.encode(
        json.dumps({"sub": 1, "exp": 2**33}).encode(), SECRET, algorithm="HS256"
    )
    with pytest.raises(InvalidCredentials, match="not valid"):
        await verifier(jwt_secret=SECRET).verify(text)


async def test_clocks_may_differ_a_little() -> None:
    assert await verifier(jwt_secret=SECRET).verify(token(exp=time.time() - 5)) == "ann"


async def test_audience_and_issuer_are_checked_where_they_are_set() -> None:
    strict = verifier(jwt_secret=SECRET, jwt_audience="api", jwt_issuer="https://issuer")
    assert await strict.verify(token(aud=["x", "api"], iss="https://issuer")) == "ann"
    for claims in (
        {"aud": "other", "iss": "https://issuer"},
        {"aud": "api", "iss": "https://issuer.evil"},
        {"aud": "api"},
        {"iss": "https://issuer"},
    ):
        with pytest.raises(InvalidCredentials):
            await strict.verify(token(**claims))


@pytest.mark.parametrize(("make", "alg"), [(rsa_key, "RS256"), (ec_key, "ES256")])
async def test_a_public_key_checks_its_own_algorithm(tmp_path: Path, make: Any, alg: str) -> None:
    check = verifier(jwt_public_key_file=pem(tmp_path / "key.pem", make())).verify
    assert await check(token(make(), alg)) == "ann"
    with pytest.raises(InvalidCredentials):
        await check(token(rsa_key(1), "RS256"))
    with pytest.raises(InvalidCredentials):
        await check(token(SECRET, "HS256"))


async def test_a_hash_other_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    check = verifier(jwt_public_key_file=pem(tmp_path / "key.pem", rsa_key())).verify
    for alg in ("RS384", "RS512", "PS256"):
        with pytest.raises(InvalidCredentials):
            await check(token(rsa_key(), alg))
    with pytest.raises(InvalidCredentials):
        await verifier(jwt_secret=SECRET).verify(token("x" * 64, "HS512"))


async def test_published_keys_are_found_by_their_ids() -> None:
    issuer = Issuer(jwk("r", rsa_key()), jwk("e", ec_key(), use="sig"))
    check = issuer.verifier().verify
    assert await check(token(rsa_key(), "RS256", kid="r")) == "ann"
    assert await check(token(ec_key(), "ES256", kid="e")) == "ann"
    with pytest.raises(InvalidCredentials):
        await check(token(rsa_key(1), "RS256", kid="r"))
    with pytest.raises(InvalidCredentials):
        await check(token(ec_key(), "ES256", kid="r"))
    assert issuer.fetches == 1


async def test_a_published_key_without_an_id_is_for_tokens_without_one() -> None:
    assert await Issuer(jwk(None, ec_key())).verifier().verify(token(ec_key(), "ES256")) == "ann"


async def test_published_keys_for_other_uses_are_ignored() -> None:
    secret = {"kty": "oct", "kid": "s", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}
    issuer = Issuer(secret, jwk("enc", rsa_key(), use="enc"), jwk("r512", rsa_key(), alg="RS512"))
    check = issuer.verifier().verify
    for text in (
        token(SECRET, kid="s"),
        token(rsa_key(), "RS256", kid="enc"),
        token(rsa_key(), "RS512", kid="r512"),
    ):
        with pytest.raises((InvalidCredentials, JWKSUnavailable)):
            await check(text)


async def test_unknown_ids_refetch_the_keys_but_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    issuer = Issuer(jwk("1", rsa_key()))
    tokens = issuer.verifier()
    assert await tokens.verify(token(rsa_key(), "RS256", kid="1")) == "ann"
    issuer.keys.append(jwk("2", rsa_key(1)))
    rotated = token(rsa_key(1), "RS256", kid="2")
    for _ in range(3):
        with pytest.raises(InvalidCredentials, match="does not publish"):
            await tokens.verify(rotated)
    assert issuer.fetches == 1
    now = time.monotonic() + core_jwt.JWKS_RETRY_S
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert await tokens.verify(rotated) == "ann"
    assert issuer.fetches == 2


async def test_an_issuer_that_was_down_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_jwt, "JWKS_RETRY_S", 0)
    issuer = Issuer(jwk("1", rsa_key()))
    issuer.failure = httpx.ConnectError("refused")
    tokens = issuer.verifier()
    with pytest.raises(JWKSUnavailable):
        await tokens.verify(token(rsa_key(), "RS256", kid="1"))
    issuer.failure = None
    assert await tokens.verify(token(rsa_key(), "RS256", kid="1")) == "ann"


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.Response(500),
        httpx.Response(302, headers={"location": "http://169.254.169.254/"}),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=["keys"]),
        httpx.Response(200, json={"keys": []}),
        httpx.Response(200, json={"keys": [{"kty": "?"}]}),
        httpx.Response(200, content=b'{"keys":"\xff"}'),
        httpx.Response(200, json={"keys": [{"kty": "RSA", "n": 1, "e": [], "kid": {}}]}),
    ],
)
async def test_known_keys_are_kept_when_the_issuer_fails(
    failure: httpx.Response | Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(core_jwt, "JWKS_RETRY_S", 0)
    issuer = Issuer(jwk("1", rsa_key()))
    tokens = issuer.verifier()
    known = token(rsa_key(), "RS256", kid="1")
    assert await tokens.verify(known) == "ann"
    issuer.failure = failure
    with pytest.raises(JWKSUnavailable):  # its issuer may have published the key by now
        await tokens.verify(token(rsa_key(1), "RS256", kid="2"))
    assert issuer.fetches == 2
    assert await tokens.verify(known) == "ann"
    assert "JWT_JWKS_URL" in caplog.text
    issuer.failure = None
    with pytest.raises(InvalidCredentials):
        await tokens.verify(token(rsa_key(1), "RS256", kid="2"))


async def test_stale_keys_are_refreshed_without_making_anyone_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(core_jwt, "JWKS_RETRY_S", 0)
    monkeypatch.setattr(core_jwt, "JWKS_MAX_AGE_S", 0)
    issuer = Issuer(jwk("1", rsa_key()))
    tokens = issuer.verifier()
    known = token(rsa_key(), "RS256", kid="1")
    assert await tokens.verify(known) == "ann"
    issuer.open.clear()
    assert await tokens.verify(known) == "ann"
    issuer.keys = [jwk("2", rsa_key(1))]
    issuer.open.set()
    assert await tokens.verify(token(rsa_key(1), "RS256", kid="2")) == "ann"
    with pytest.raises(InvalidCredentials):
        await tokens.verify(known)


async def test_an_unresponsive_issuer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(core_jwt, "JWKS_TIMEOUT_S", 0.01)
    issuer = Issuer()
    issuer.open.clear()
    with pytest.raises(JWKSUnavailable) as caught:
        await issuer.verifier().verify(token(rsa_key(), "RS256", kid="1"))
    assert caught.value.headers["retry-after"] == "10"


async def test_waiters_share_one_fetch_that_outlives_each_of_them() -> None:
    issuer = Issuer(jwk("1", rsa_key()))
    issuer.open.clear()
    tokens = issuer.verifier()
    text = token(rsa_key(), "RS256", kid="1")
    waiting = [asyncio.create_task(tokens.verify(text)) for _ in range(3)]
    while not issuer.fetches:
        await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    issuer.open.set()
    assert await asyncio.gather(*waiting[1:]) == ["ann", "ann"]
    assert waiting[0].cancelled()
    assert issuer.fetches == 1


async def test_weak_keys_are_not_used(tmp_path: Path) -> None:
    weak = rsa_key(size=1024)
    with pytest.raises(SettingsError, match="2048 bits"):
        verifier(jwt_public_key_file=pem(tmp_path / "key.pem", weak))
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        text = token(weak, "RS256", kid="weak")
    with pytest.raises(InvalidCredentials):
        await Issuer(jwk("weak", weak)).verifier().verify(text)


def test_without_a_key_there_are_no_tokens() -> None:
    assert TokenVerifier.from_settings(Settings()) is None


def test_only_one_kind_of_key_may_be_set() -> None:
    with pytest.raises(SettingsError, match="mutually exclusive"):
        verifier(jwt_secret=SECRET, jwt_jwks_url=URL)


def test_an_unreadable_file_fails_startup(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="JWT_PUBLIC_KEY_FILE cannot be read: No such file"):
        verifier(jwt_public_key_file=str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    "content",
    [
        b"-----BEGIN PRIVATE KEY-----\nsecret\n",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        b"\xff",
        None,
    ],
)
async def test_a_file_without_a_usable_public_key_fails_startup(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "key.pem"
    if content is None:
        pem(path, ec.generate_private_key(ec.SECP384R1()))
    else:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match="JWT_PUBLIC_KEY_FILE is invalid") as caught:
        verifier(jwt_public_key_file=str(path))
    assert "secret" not in str(caught.value)
    settings = Settings(jwt_public_key_file=str(path))
    function = TokenVerifier.from_settings(settings, check_key=False)
    assert function
    with pytest.raises(SettingsError):
        await function.verify(token())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JWT_SECRET", "secret" * 5),
        ("JWT_JWKS_URL", "http://issuer.example/keys"),
        ("JWT_JWKS_URL", "http://localhost.evil/keys"),
        ("JWT_JWKS_URL", "https://user:secret@issuer.example/keys"),
        ("JWT_JWKS_URL", "file:///etc/passwd"),
    ],
)
def test_weak_settings_fail_startup(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is invalid: expected ") as caught:
        Settings.from_env({name: value})
    assert "secretsecret" not in str(caught.value)
    assert "user:" not in str(caught.value)


def test_an_issuer_on_loopback_needs_no_tls() -> None:
    url = "http://127.0.0.1:8000/keys"
    assert Settings.from_env({"JWT_JWKS_URL": url}).jwt_jwks_url == url
