"""The settings, each an environment variable of the same name in capitals."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

import msgspec
from msgspec import Meta

from core.settings.environment import read
from core.settings.networks import Networks


def _form(pattern: str, words: str) -> Meta:
    return Meta(pattern=rf"^(?:{pattern})(?!\n)$", extra_json_schema={"format": words})


_SECRET = Meta(extra_json_schema={"writeOnly": True})
_AUTHORITY = r"(\[[0-9a-fA-F:.]+\]|[^/@:\s?#\[\]]+)(:\d{1,5})?"

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
    str, Meta(pattern=r"^(\*|https?://(\[[0-9a-f:]+\]|[a-z0-9.-]+)(:\d{1,5})?)(?!\n)$")
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


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting of the system, checked once when it is read."""

    host: Annotated[str, Meta(description="address to listen on")] = "0.0.0.0"  # noqa: S104 - a stranger gets a 401
    port: Annotated[Port, Meta(description="port of the API; 0 takes a free one")] = 5000
    web_port: Annotated[Port, Meta(description="port of the chat page; 0 is none")] = 8080
    ssl_certfile: Annotated[
        str, Meta(description="PEM file of this server's certificate, which makes it speak HTTPS")
    ] = ""
    ssl_keyfile: Annotated[
        str, Meta(description="PEM file of that certificate's key, if it is a file of its own")
    ] = ""
    shutdown_grace_s: Annotated[
        SecondsOrNone, Meta(description="seconds that running requests get to end on SIGTERM")
    ] = 30
    log_format: Annotated[
        Literal["json", "console"], Meta(description="json for programs, console for people")
    ] = "json"
    log_file: Annotated[
        str, Meta(description="file to log to, in the place of the standard output")
    ] = ""

    request_timeout_s: Annotated[
        Seconds, Meta(description="seconds from a request's arrival to its last byte")
    ] = 300
    max_body_bytes: Annotated[Amount, Meta(description="largest request body, in bytes")] = (
        20 * 2**20
    )
    stream_heartbeat_s: Annotated[
        SecondsOrNone,
        Meta(description="silent seconds after which a stream sends an empty token; 0 is never"),
    ] = 0
    default_model: Annotated[str, Meta(description="model of a request that names none")] = (
        "llama3.1:70b"
    )
    max_predict: Annotated[
        Amount, Meta(description="most tokens an answer may have (caps num_predict)")
    ] = 8192
    max_context_tokens: Annotated[
        Amount, Meta(description="most token ids a request's context may have")
    ] = 131_072
    allow_cloud_models: Annotated[
        bool, Meta(description="whether models that run in Ollama's cloud may be listed and used")
    ] = False

    ollama_base_url: Annotated[BaseURL, Meta(description="where Ollama, or the way to it, is")] = (
        "http://127.0.0.1:11434"
    )
    ollama_connect_timeout_s: Annotated[
        Seconds, Meta(description="seconds that connecting to Ollama may take")
    ] = 5
    ollama_headers: Annotated[
        dict[HeaderName, HeaderValue],
        _SECRET,
        Meta(description="JSON object of headers that a tunnel to Ollama wants"),
    ] = {}
    ollama_ca_file: Annotated[
        str, Meta(description="PEM file of the authority that signed Ollama's certificate")
    ] = ""
    ollama_client_cert: Annotated[
        str, Meta(description="PEM file of the client certificate to show to Ollama")
    ] = ""
    ollama_client_key: Annotated[
        str, Meta(description="PEM file of that certificate's key, if it is a file of its own")
    ] = ""

    allowed_clients: Annotated[
        NetworkList, Meta(description="who may call at all; 403 for the rest")
    ] = Networks("0.0.0.0/0,::/0")
    anonymous_clients: Annotated[
        NetworkList, Meta(description="who may call without a key or token")
    ] = Networks("127.0.0.0/8,::1/128")
    trusted_proxies: Annotated[
        NetworkList,
        Meta(description="proxies whose X-Forwarded-For and X-Forwarded-Proto are believed"),
    ] = Networks("none")
    api_keys_file: Annotated[
        str, Meta(description="file of API keys, made by python -m core.keys")
    ] = ""
    api_keys: Annotated[str, _SECRET, Meta(description="the JSON of such a file itself")] = ""
    jwt_secret: Annotated[
        str,
        _SECRET,
        Meta(min_length=32, description="secret shared with the issuer of HS256 tokens"),
    ] = ""
    jwt_public_key_file: Annotated[
        str, Meta(description="PEM file of the key that RS256 or ES256 tokens are checked with")
    ] = ""
    jwt_jwks_url: Annotated[
        JWKSURL, Meta(description="where the issuer of such tokens publishes its keys")
    ] = ""
    jwt_audience: Annotated[str, Meta(description="whom a token must be for (its aud)")] = ""
    jwt_issuer: Annotated[str, Meta(description="whom a token must be from (its iss)")] = ""
    cors_origins: Annotated[
        tuple[Origin, ...],
        Meta(
            description="other origins whose pages may call; * lets any page that a user opens do "
            "what that user's address may",
            extra_json_schema={"format": "origins such as https://chat.example.com, or *"},
        ),
    ] = ()
    allowed_hosts: Annotated[
        tuple[HostName, ...],
        Meta(
            description="names of this server beside localhost, the machine's own and addresses",
            extra_json_schema={"format": "names such as api.example.com or *.example.com, or *"},
        ),
    ] = ()

    rate_limit: Annotated[
        Rate, Meta(description="requests that one client may make; a key may have its own")
    ] = "60/minute"
    rate_limit_storage: Annotated[
        StorageURL,
        _SECRET,
        Meta(description="where hits are counted; Redis or Valkey shares them"),
    ] = "memory://"
    rate_limit_fail_closed: Annotated[
        bool,
        Meta(description="whether requests are refused, not let through, while that store is down"),
    ] = False
    auth_failure_limit: Annotated[
        Rate, Meta(description="wrong credentials that one address may send")
    ] = "10/minute"
    max_concurrent: Annotated[
        Amount, Meta(description="most requests that Ollama works on at once")
    ] = 4
    max_concurrent_per_client: Annotated[
        int, Meta(ge=0, description="most of them that are one client's; 0 is no limit")
    ] = 0
    max_queue: Annotated[int, Meta(ge=0, description="most requests that wait for their turn")] = 64
    queue_timeout_s: Annotated[
        Seconds, Meta(description="seconds that a request may wait for its turn")
    ] = 120

    aws_lambda_function_name: Annotated[
        str, Meta(description="set by AWS Lambda: there the gateway tells the client's address")
    ] = ""

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings; a variable that is absent or empty keeps its default.

        Raises:
            SettingsError: a value is unusable; the text is one line and has no secret in it.
        """
        return read(cls, environ)
