"""The settings, each an environment variable of the same name in capitals."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from msgspec import Meta

from core.settings.combinations import check
from core.settings.environment import read
from core.settings.functions import FunctionSettings
from core.settings.networks import Networks
from core.settings.values import (
    JWKSURL,
    SECRET,
    Amount,
    BaseURL,
    HeaderName,
    HeaderValue,
    HostName,
    NetworkList,
    Origin,
    Port,
    Rate,
    Seconds,
    SecondsOrNone,
    SecretName,
    StorageURL,
)


class Settings(FunctionSettings, frozen=True, kw_only=True):
    """Every setting, checked once when it is read."""

    host: Annotated[str, Meta(description="address to listen on")] = "0.0.0.0"  # noqa: S104 - a stranger gets a 401
    port: Annotated[Port, Meta(description="port of the API; 0 picks a free one")] = 5000
    web_port: Annotated[Port, Meta(description="port of the chat page; 0 disables it")] = 8080
    ssl_certfile: Annotated[
        str, Meta(description="PEM file of this server's certificate; enables HTTPS")
    ] = ""
    ssl_keyfile: Annotated[
        str, Meta(description="PEM file of its key, if not in the same file")
    ] = ""
    shutdown_grace_s: Annotated[
        SecondsOrNone,
        Meta(description="seconds to finish requests on SIGTERM; `docker stop` kills after 10"),
    ] = 8
    log_format: Annotated[
        Literal["json", "console"], Meta(description="json for programs, console for people")
    ] = "json"
    usage_file: Annotated[
        str,
        Meta(description="SQLite file for usage counts; if unset, only memory keeps them"),
    ] = ""
    log_file: Annotated[str, Meta(description="file to log to, instead of standard output")] = ""

    otel_exporter_otlp_endpoint: Annotated[
        BaseURL,
        Meta(
            description="OpenTelemetry collector (OTLP over HTTP) for traces, such as "
            "http://127.0.0.1:4318; needs the extra otel"
        ),
    ] = ""

    request_timeout_s: Annotated[
        Seconds, Meta(description="seconds from a request's arrival to its last byte")
    ] = 300
    max_connections: Annotated[
        Amount,
        Meta(description="maximum open connections; the limit of open files may allow fewer"),
    ] = 4096
    max_connections_per_client: Annotated[
        Amount,
        Meta(description="maximum of these per address, except loopback and trusted proxies"),
    ] = 256
    max_body_bytes: Annotated[Amount, Meta(description="largest request body, in bytes")] = (
        20 * 2**20
    )
    max_memory_bytes: Annotated[
        Amount, Meta(description="maximum size of all request bodies together, in bytes")
    ] = 256 * 2**20
    stream_heartbeat_s: Annotated[
        SecondsOrNone,
        Meta(description="seconds of silence until a stream sends an empty token; 0 disables it"),
    ] = 0
    default_model: Annotated[
        str,
        Meta(
            description="model for requests that name none; if unset, llama3.1:70b or, where that "
            "is not installed, a model that can chat: one in memory, else the newest"
        ),
    ] = ""
    warm_up: Annotated[
        tuple[Annotated[str, Meta(min_length=1)], ...],
        Meta(
            description="models to load at startup and whenever Ollama comes back, separated by "
            "commas",
            extra_json_schema={"format": "models such as llama3.1:8b,qwen2.5:72b"},
        ),
    ] = ()
    max_predict: Annotated[
        Amount,
        Meta(
            description="maximum tokens in an answer: caps num_predict, and replaces a model's own"
        ),
    ] = 8192
    max_conversation_bytes: Annotated[
        Amount,
        Meta(description="maximum text of a conversation (context or messages), in UTF-8 bytes"),
    ] = 2**20
    allow_cloud_models: Annotated[
        bool, Meta(description="list and allow models that run in Ollama's cloud")
    ] = False

    ollama_base_url: Annotated[
        BaseURL, Meta(description="URL of Ollama, or of the tunnel to it")
    ] = "http://127.0.0.1:11434"
    built_in_model: Annotated[
        bool,
        Meta(
            description="answer with the small built-in model instead of Ollama; start.sh sets it "
            "if it finds no Ollama"
        ),
    ] = False
    ollama_connect_timeout_s: Annotated[
        Seconds, Meta(description="seconds to wait for a connection to Ollama")
    ] = 5
    ollama_headers: Annotated[
        dict[HeaderName, HeaderValue],
        SECRET,
        Meta(description="JSON object of headers for the tunnel to Ollama"),
    ] = {}  # noqa: RUF012 - of a struct, which copies it
    ollama_ca_file: Annotated[
        str, Meta(description="PEM file of the CA that signed Ollama's certificate")
    ] = ""
    ollama_client_cert: Annotated[
        str, Meta(description="PEM file of the client certificate for Ollama")
    ] = ""
    ollama_client_key: Annotated[
        str, Meta(description="PEM file of its key, if not in the same file")
    ] = ""

    allowed_clients: Annotated[
        NetworkList, Meta(description="networks that may call at all; others get a 403")
    ] = Networks("0.0.0.0/0,::/0")
    anonymous_clients: Annotated[
        NetworkList, Meta(description="networks that may call without a key or token")
    ] = Networks("127.0.0.0/8,::1/128")
    monitor_clients: Annotated[
        NetworkList,
        Meta(
            description="networks that may GET /api/ready and /metrics without a key or a rate "
            "limit"
        ),
    ] = Networks("127.0.0.0/8,::1/128")
    trusted_proxies: Annotated[
        NetworkList,
        Meta(description="proxies whose X-Forwarded-For and X-Forwarded-Proto are trusted"),
    ] = Networks("none")
    api_keys_file: Annotated[
        str, Meta(description="file of API keys, written by python -m core.keys")
    ] = ""
    api_keys: Annotated[str, SECRET, Meta(description="the contents of such a file")] = ""
    api_keys_secret: Annotated[
        SecretName,
        Meta(
            description="where else to read such JSON: from RATE_LIMIT_STORAGE's Redis or Valkey, "
            "or from an AWS secret or parameter"
        ),
    ] = ""
    jwt_secret: Annotated[
        str,
        SECRET,
        Meta(min_length=32, description="secret shared with the issuer of HS256 tokens"),
    ] = ""
    jwt_public_key_file: Annotated[
        str, Meta(description="PEM file of the public key that verifies RS256 or ES256 tokens")
    ] = ""
    jwt_jwks_url: Annotated[
        JWKSURL, Meta(description="URL where the issuer publishes those keys")
    ] = ""
    jwt_audience: Annotated[str, Meta(description="audience (aud) that a token must have")] = ""
    jwt_issuer: Annotated[str, Meta(description="issuer (iss) that a token must have")] = ""
    cors_origins: Annotated[
        tuple[Origin, ...],
        Meta(
            description="other origins whose pages may call; * lets any page a user opens act "
            "from that user's address",
            extra_json_schema={"format": "origins such as https://chat.example.com, or *"},
        ),
    ] = ()
    allowed_hosts: Annotated[
        tuple[HostName, ...],
        Meta(
            description="names of this server, beyond localhost, its host name and addresses",
            extra_json_schema={"format": "names such as api.example.com or *.example.com, or *"},
        ),
    ] = ()

    rate_limit: Annotated[
        Rate, Meta(description="requests allowed per client; a key may have its own rate")
    ] = "60/minute"
    rate_limit_storage: Annotated[
        StorageURL,
        SECRET,
        Meta(description="where requests are counted; Redis or Valkey shares the count"),
    ] = "memory://"
    rate_limit_fail_closed: Annotated[
        bool,
        Meta(description="refuse requests while that store is down, rather than admit them"),
    ] = False
    user_tokens: Annotated[
        Rate, Meta(description="tokens that a caller without an API key may use, like 200000/day")
    ] = "off"
    auth_failure_limit: Annotated[
        Rate, Meta(description="wrong credentials allowed per address")
    ] = "10/minute"
    max_concurrent: Annotated[
        Amount, Meta(description="maximum requests that Ollama works on at once")
    ] = 4
    max_concurrent_per_client: Annotated[
        int, Meta(ge=0, description="maximum of these per client; 0 disables the limit")
    ] = 0
    max_queue: Annotated[int, Meta(ge=0, description="maximum requests waiting for a slot")] = 64
    queue_timeout_s: Annotated[
        Seconds, Meta(description="seconds a request may wait for a slot")
    ] = 120
    share_queue: Annotated[
        Literal["functions", "always", "never"],
        Meta(description="who shares one queue and MAX_CONCURRENT through RATE_LIMIT_STORAGE"),
    ] = "functions"

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings; an absent or empty variable keeps its default.

        Raises:
            SettingsError: a value is invalid, or needs another setting; the text is one line and
                contains no secret.
        """
        settings = read(cls, environ)
        check(settings)
        return settings
