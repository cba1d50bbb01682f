"""The kinds of values that settings have, each with what it accepts."""

from typing import Annotated

from msgspec import Meta

from core.settings.networks import Networks


def _form(pattern: str, words: str) -> Meta:
    return Meta(pattern=rf"^(?:{pattern})(?!\n)$", extra_json_schema={"format": words})


SECRET = Meta(extra_json_schema={"writeOnly": True})
_PORT = r"([0-5]?\d{1,4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])"
_AUTHORITY = rf"(\[[0-9a-fA-F:.]+\]|[^/@:\s?#\[\]]+)(:{_PORT})?"

Port = Annotated[int, Meta(ge=0, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
SecondsOrNone = Annotated[float, Meta(ge=0, le=86_400)]
Amount = Annotated[int, Meta(ge=1)]
HeaderName = Annotated[str, Meta(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+(?!\n)$")]
HeaderValue = Annotated[str, Meta(pattern=r"^[\x20-\x7e]*(?!\n)$")]
NetworkList = Annotated[
    Networks, Meta(extra_json_schema={"format": "networks such as 10.0.0.0/8,fd00::/8, or none"})
]
Rate = Annotated[
    str,
    _form(
        r"off|[1-9]\d{0,8}/(second|minute|hour|day)",
        "a rate such as 60/minute (second, minute, hour, day), or off",
    ),
]
Origin = Annotated[
    str, Meta(pattern=rf"^(\*|https?://(\[[0-9a-f:]+\]|[a-z0-9.-]+)(:{_PORT})?)(?!\n)$")
]
HostName = Annotated[
    str, Meta(pattern=r"^(\*|(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?)(?!\n)$")
]
BaseURL = Annotated[
    str,
    _form(
        rf"https?://{_AUTHORITY}(/[^\s?#]*)?",
        "an http:// or https:// URL without user, query or fragment",
    ),
]
BasePath = Annotated[str, _form(r"[A-Za-z0-9._~!$'()*+,/-]*", "a path such as ai")]
SecretName = Annotated[
    str,
    _form(
        r"(secretsmanager|ssm|redis):[\w/+=.@:-]+", "redis:NAME, secretsmanager:NAME or ssm:NAME"
    ),
]
StorageURL = Annotated[
    str,
    _form(
        rf"memory://|rediss?://([^\s/?#@]*@)?{_AUTHORITY}(/\d+)?",
        "memory:// or redis://[user:password@]host[:port][/number]",
    ),
]
JWKSURL = Annotated[
    str,
    _form(
        r"(https://|http://(localhost|127\.0\.0\.1|\[::1\])[:/])[^\s@#]+",
        "an https:// URL, or http:// on loopback",
    ),
]
