"""Verifies JSON Web Tokens of one issuer; its dependencies load with the first token."""

# ruff: noqa: PLC0415 -- PyJWT and cryptography would take a third of a Lambda cold start

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from core.contract.errors import InvalidCredentials
from core.contract.retryable import JWKSUnavailable
from core.settings.environment import SettingsError
from core.settings.schema import Settings

if TYPE_CHECKING:
    import httpx
    from jwt import PyJWK

Key = tuple[Any, str]
"""A key in a form that PyJWT accepts, and the only algorithm it may be used with."""

PUBLIC_KEY_ALGORITHMS = {"RS256", "ES256"}
MIN_RSA_BITS = 2048
MAX_TOKEN_LENGTH = 8192
MAX_SUBJECT_LENGTH = 255
LEEWAY_S = 30
"""How far the issuer's clock may differ from ours."""
JWKS_TIMEOUT_S = 5
JWKS_MAX_AGE_S = 3600
"""When to fetch the published keys again, in case the issuer has withdrawn some."""
JWKS_RETRY_S = 10
"""Minimum seconds between fetches, however many tokens name unknown keys."""

_logger = logging.getLogger(__name__)


class TokenVerifier:
    """Identifies a token's subject, with the one kind of key that the settings name.

    The key determines the algorithm; the token's own header merely has to match.
    """

    def __init__(
        self,
        key: "SecretKey | PublicKey | PublishedKeys",
        *,
        audience: str | None = None,
        issuer: str | None = None,
    ) -> None:
        """Accept tokens signed with `key` for `audience`; if None, those that name no audience."""
        self._key = key
        self._audience = audience
        self._issuer = issuer

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        transport: "httpx.AsyncBaseTransport | None" = None,
        *,
        check_key: bool = True,
    ) -> Self | None:
        """Return the verifier that `settings` describes; None without a key.

        Args:
            settings: the source of JWT_...
            transport: used to reach JWT_JWKS_URL; the network if None.
            check_key: whether to parse JWT_PUBLIC_KEY_FILE now, at the cost of a slower start.

        Raises:
            SettingsError: the key is invalid, or several are set.
        """
        keys: list[SecretKey | PublicKey | PublishedKeys] = []
        if settings.jwt_secret:
            keys.append(SecretKey(settings.jwt_secret))
        if settings.jwt_public_key_file:
            public = PublicKey(Path(settings.jwt_public_key_file))
            if check_key:
                _ = public.key
            keys.append(public)
        if settings.jwt_jwks_url:
            keys.append(PublishedKeys(settings.jwt_jwks_url, transport))
        if len(keys) > 1:
            raise SettingsError(
                "JWT_SECRET, JWT_PUBLIC_KEY_FILE and JWT_JWKS_URL are mutually exclusive. Set one"
            )
        if not keys:
            return None
        return cls(
            keys[0], audience=settings.jwt_audience or None, issuer=settings.jwt_issuer or None
        )

    async def verify(self, token: str) -> str:
        """Return the subject of `token`.

        Raises:
            InvalidCredentials: the token is not valid.
            JWKSUnavailable: the issuer's keys have not been fetched yet.
        """
        if len(token) > MAX_TOKEN_LENGTH:
            raise InvalidCredentials("the token is too long")
        import jwt

        try:
            key, algorithm = await self._key.find(jwt.get_unverified_header(token))
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "sub"], "enforce_minimum_key_length": True},
            )
        except jwt.ExpiredSignatureError:
            raise InvalidCredentials("the token has expired") from None
        except (jwt.InvalidAudienceError, jwt.InvalidIssuerError):
            raise InvalidCredentials("the token has the wrong audience or issuer") from None
        except (jwt.InvalidTokenError, jwt.InvalidKeyError):
            raise InvalidCredentials("the token is not valid") from None
        subject: str = claims["sub"]
        if not 0 < len(subject) <= MAX_SUBJECT_LENGTH or not subject.isprintable():
            raise InvalidCredentials("the token's subject is empty, too long or not printable")
        return subject


class SecretKey:
    """The secret that HS256 tokens are signed with."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    async def find(self, header: Mapping[str, Any]) -> Key:
        """Return the key and its algorithm, whatever `header` names."""
        return self._secret, "HS256"


class PublicKey:
    """The issuer's public key: RSA for RS256, P-256 for ES256."""

    def __init__(self, path: Path) -> None:
        """Read the PEM file at `path`; raises SettingsError if that fails."""
        try:
            self._pem = path.read_bytes()
        except OSError as error:
            raise SettingsError(f"JWT_PUBLIC_KEY_FILE cannot be read: {error.strerror}") from None

    async def find(self, header: Mapping[str, Any]) -> Key:
        """Return the key and its algorithm, whatever `header` names.

        Raises:
            SettingsError: the file contains no suitable key.
        """
        return self.key

    @cached_property
    def key(self) -> Key:
        """The key and its algorithm; raises SettingsError if the file has no suitable key."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        with suppress(ValueError, UnsupportedAlgorithm):
            key = load_pem_public_key(self._pem)
            if isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
                return key, "RS256"
            if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
                return key, "ES256"
        raise SettingsError(
            "JWT_PUBLIC_KEY_FILE is invalid: expected a PEM file (BEGIN PUBLIC KEY) with an RSA "
            f"key of at least {MIN_RSA_BITS} bits or a P-256 key"
        )


class _JWKS(msgspec.Struct):
    keys: list[dict[str, Any]]


class PublishedKeys:
    """The public keys at an issuer's URL (a JSON Web Key Set), by key id."""

    def __init__(self, url: str, transport: "httpx.AsyncBaseTransport | None") -> None:
        """Fetch from `url` when a token needs it, through `transport` if given."""
        self._url = url
        self._transport = transport
        self._keys: dict[str | None, PyJWK] = {}
        self._next_fetch = self._stale = -math.inf
        self._failed = False  # whether the last fetch did
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, header: Mapping[str, Any]) -> Key:
        """Return the key that `header` names, and its algorithm.

        Raises:
            InvalidCredentials: the issuer has no such key.
            JWKSUnavailable: the keys cannot be fetched, and those known do not include it.
        """
        kid = header.get("kid")
        if kid not in self._keys or time.monotonic() >= self._stale:
            self._refresh()
        if kid not in self._keys and self._fetching:
            await asyncio.shield(self._fetching)  # outlives a client that disconnects
        if key := self._keys.get(kid):
            return key, key.algorithm_name
        if self._failed or not self._keys:
            raise JWKSUnavailable(JWKS_RETRY_S)
        raise InvalidCredentials("the token is signed with a key that its issuer does not publish")

    def _refresh(self) -> None:
        """Start fetching the keys, unless a fetch is running or has just finished."""
        if self._fetching is None and time.monotonic() >= self._next_fetch:
            self._fetching = asyncio.create_task(self._fetch())

    async def _fetch(self) -> None:
        import httpx
        import jwt

        try:
            async with (
                asyncio.timeout(JWKS_TIMEOUT_S),
                httpx.AsyncClient(transport=self._transport, trust_env=False) as client,
            ):
                response = (await client.get(self._url)).raise_for_status()
            published = jwt.PyJWKSet(msgspec.json.decode(response.content, type=_JWKS).keys)
            keys = {
                key.key_id: key
                for key in published
                if key.algorithm_name in PUBLIC_KEY_ALGORITHMS and key.public_key_use != "enc"
            }
        except Exception as error:  # whatever the issuer publishes, the old keys stay
            self._failed = True
            _logger.error(
                "Cannot fetch keys from JWT_JWKS_URL: %s", str(error) or type(error).__name__
            )
        else:
            self._failed = False
            self._keys = keys
            self._stale = time.monotonic() + JWKS_MAX_AGE_S
        finally:
            self._next_fetch = time.monotonic() + JWKS_RETRY_S
            self._fetching = None
