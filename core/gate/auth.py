"""Authenticates and authorizes requests, and records who sent each one."""

from collections.abc import Awaitable
from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.types import Scope

from core.context import Caller, Record, fields_of
from core.contract.errors import (
    AddressNotAllowed,
    BadRequest,
    CredentialsNeeded,
    InvalidCredentials,
)
from core.gate.public import is_probe, is_public
from core.gate.rates import FailureLimiter
from core.gate.sites import Sites
from core.gate.tokens import TokenVerifier
from core.keys.records import PREFIX, key_id
from core.keys.store import KeyStore
from core.settings.networks import UNKNOWN, Address, parse_address
from core.settings.schema import Settings

_CREDENTIAL_HEADERS = {b"authorization", b"x-api-key"}


class _Peer(NamedTuple):
    """What the settings say about an address."""

    address: Address
    is_allowed: bool
    is_anonymous: bool
    is_monitor: bool
    caller: Caller | None
    """Whom a request without credentials is from; None if that is not always the same."""


class Auth:
    """Identifies the caller by API key, by token or, failing both, by address.

    Wrong credentials are refused wherever they come from. An address that keeps sending them
    gets a 429, but valid ones always pass: 256 random bits cannot be guessed, and a client must
    not be locked out because it shares an address with an attacker.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        keys: KeyStore,
        tokens: TokenVerifier | None,
        failures: FailureLimiter,
    ) -> None:
        """Run behind `ClientAddressMiddleware`; without `tokens`, accept only API keys."""
        self.settings = settings
        self.keys = keys
        self.tokens = tokens
        self.failures = failures
        self.sites = Sites()
        self._peer = lru_cache(maxsize=1024)(self._look_up)

    def __call__(self, scope: Scope, record: Record) -> Awaitable[None] | None:
        """Set the `Caller` in the request's record.

        Raises:
            AddressNotAllowed: the address is not in ALLOWED_CLIENTS.
            BadRequest: the request carries several different credentials.
            Unauthorized: the credentials are missing or wrong.
            RateLimited: the address has sent wrong credentials too often.
        """
        peer = self._peer(scope["client"][0])
        if not peer.is_allowed:
            raise AddressNotAllowed(f"Requests from {peer.address} are not allowed")
        public = is_public(scope)
        record.is_exempt = public or (peer.is_monitor and is_probe(scope))
        if not public and (credential := _credential(scope)):
            return self._authenticate(credential, record, peer.address)
        record.let_in = peer.is_anonymous
        if not record.is_exempt and not record.let_in:
            raise CredentialsNeeded(None if peer.address == UNKNOWN else str(peer.address))
        record.caller = peer.caller or _anonymous(peer.address, self.sites.of(peer.address))
        return None

    def _look_up(self, host: str) -> _Peer:
        address = parse_address(host)
        settings = self.settings
        return _Peer(
            address,
            address in settings.allowed_clients,
            address in settings.anonymous_clients,
            address in settings.monitor_clients,
            None if isinstance(address, IPv6Address) else _anonymous(address, str(address)),
        )

    async def _authenticate(self, credential: str, record: Record, address: Address) -> None:
        record.caller = await self._holder(credential, record, address)
        record.let_in = True

    async def _holder(self, credential: str, record: Record, address: Address) -> Caller:
        try:
            if self.tokens is None or credential.startswith(PREFIX) or key_id(credential):
                await self.keys.refresh()
                key = self.keys.authenticate(credential)
                return Caller(
                    id=f"key:{key.name}",
                    name=key.name,
                    address=str(address),
                    rate=key.rate,
                    concurrent=key.concurrent,
                    models=key.models,
                    tokens=key.tokens,
                )
            subject = await self.tokens.verify(credential)
            return Caller(id=f"jwt:{subject}", name=subject, address=str(address))
        except InvalidCredentials as error:
            record.refused_key = error.key
            await self.failures.hit(self.sites.of(address))
            raise


def _credential(scope: Scope) -> str | None:
    """Return the request's key or token; authorization schemes other than Bearer are ignored."""
    if _CREDENTIAL_HEADERS.isdisjoint(fields_of(scope)):
        return None
    headers = Headers(scope=scope)
    credentials = set(headers.getlist("x-api-key"))
    for value in headers.getlist("authorization"):
        scheme, _, token = value.partition(" ")
        if scheme.lower() == "bearer":
            credentials.add(token.strip())
    credentials.discard("")
    if len(credentials) > 1:
        raise BadRequest(
            "The request carries several different credentials. Send only one, as "
            "Authorization: Bearer ... or as X-API-Key"
        )
    return credentials.pop() if credentials else None


def _anonymous(address: Address, site: str) -> Caller:
    return Caller(id=f"address:{site}", name=str(address), address=str(address))
