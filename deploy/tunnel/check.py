"""Says whether Ollama answers through the tunnel, or what is wrong.

`python -m deploy.tunnel.check` asks as the functions do, with the same OLLAMA_* variables, and
exits with 1 if they would get no answer.
"""

import argparse
import asyncio
import os
import socket
import ssl
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
from cryptography import x509

from core.ollama.failures import failed_response
from core.ollama.transport import HTTPTransport
from core.ollama.upstream import Upstream
from core.settings.environment import SettingsError
from core.settings.schema import Settings

ANSWER_TIMEOUT_S = 10
"""Ollama answers with its version from memory, in milliseconds."""
WARNING_DAYS = 30

# OpenSSL's X509_V_ERR_*, of x509_vfy.h
_EXPIRED = 10
_ANOTHER_NAME = {62, 64}


class Broken(Exception):
    """The tunnel does not work; the text says why, and what to do."""


class _Version(msgspec.Struct):
    version: str


async def version(settings: Settings, timeout_s: float = ANSWER_TIMEOUT_S) -> str:
    """Return the version of the Ollama server at the other end.

    Raises:
        Broken: none answers, or not within `timeout_s` seconds from the connection.
        SettingsError: a file that TLS needs is invalid.
    """
    url = httpx.URL(f"{settings.ollama_base_url.rstrip('/')}/api/version")
    upstream = Upstream(settings)
    request = httpx.Request("GET", url, headers=upstream.headers)
    try:
        async with asyncio.timeout(settings.ollama_connect_timeout_s + timeout_s):
            response = await HTTPTransport(upstream.pool).handle_async_request(request)
            body = await response.aread()
    except TimeoutError:
        raise Broken(
            f"the relay accepts the call, but nothing came back in {timeout_s:g} s: the tunnel "
            "hangs. Is the Ollama machine asleep, or without network? The relay gives up "
            "such a tunnel within two minutes"
        ) from None
    except httpx.ConnectTimeout:
        raise Broken(
            f"{url.host} does not react at all. Is the relay up, and does its firewall allow "
            f"port {_port(url)}?"
        ) from None
    except httpx.ConnectError as error:
        raise Broken(_no_connection(error.__cause__, url)) from None
    except httpx.RemoteProtocolError:
        raise Broken(
            "what answers is not Ollama. On the relay, ss -ltnp shows which program uses the "
            "tunnel's port"
        ) from None
    except httpx.TransportError as error:
        raise Broken(f"the relay broke the connection: {error}. Check its log") from None
    finally:
        upstream.pool.close()
    if response.status_code != httpx.codes.OK:
        raise Broken(str(failed_response(response, body)))
    try:
        return msgspec.json.decode(body, type=_Version).version
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Broken(
            f"something that is not Ollama answers at {url}. Check OLLAMA_BASE_URL"
        ) from None


def expiring(settings: Settings, days: int = WARNING_DAYS) -> list[str]:
    """Return a warning for each certificate that expires within `days`.

    Raises:
        OSError, ValueError: one of them cannot be read.
    """
    url = httpx.URL(settings.ollama_base_url)
    found = {
        f"the certificate in {name}": Path(path).read_bytes()
        for name, path in (
            ("OLLAMA_CA_FILE", settings.ollama_ca_file),
            ("OLLAMA_CLIENT_CERT", settings.ollama_client_cert),
        )
        if path
    }
    if url.scheme == "https":
        pem = ssl.get_server_certificate((url.host, _port(url)), timeout=ANSWER_TIMEOUT_S)
        found["the relay's certificate"] = pem.encode()
    soon = datetime.now(UTC) + timedelta(days=days)
    return [
        f"{name} expires on {end:%Y-%m-%d}. Renew it with certificates.sh"
        for name, content in found.items()
        if (end := x509.load_pem_x509_certificate(content).not_valid_after_utc) < soon
    ]


def _no_connection(cause: BaseException | None, url: httpx.URL) -> str:
    match cause:
        case socket.gaierror():
            return f"DNS has no address for {url.host}. Check the name in OLLAMA_BASE_URL"
        case ssl.SSLCertVerificationError():
            return _not_trusted(cause, url.host)
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER") | ConnectionResetError():
            return f"{url.host} does not speak TLS on port {_port(url)}. Check OLLAMA_BASE_URL"
        case ssl.SSLError():
            return f"TLS with {url.host} fails ({cause}). Check the relay's log"
    return (
        f"{url.host} accepts no connection on port {_port(url)}. Is nginx running on the relay? "
        f"({cause})"
    )


def _not_trusted(error: ssl.SSLCertVerificationError, host: str) -> str:
    if error.verify_code == _EXPIRED:
        return "the relay's certificate has expired. Renew it with certificates.sh"
    if error.verify_code in _ANOTHER_NAME:
        return f"the relay's certificate is not for {host}. Check OLLAMA_BASE_URL"
    return (
        f"the relay's certificate is not trusted ({error.verify_message}). Is OLLAMA_CA_FILE the "
        "ca.crt that was made together with it?"
    )


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def main() -> None:
    """Check, print one line, and exit with 1 if the tunnel does not work."""
    parser = argparse.ArgumentParser(prog="python -m deploy.tunnel.check", description=__doc__)
    parser.add_argument(
        "--timeout", type=float, default=ANSWER_TIMEOUT_S, help="seconds to wait for an answer"
    )
    arguments = parser.parse_args()
    started = time.monotonic()
    try:
        found = asyncio.run(version(Settings.from_env(os.environ), arguments.timeout))
    except (Broken, SettingsError) as error:
        sys.exit(str(error))
    elapsed_ms = (time.monotonic() - started) * 1000
    for warning in expiring(Settings.from_env(os.environ)):
        print(f"warning: {warning}", file=sys.stderr)  # noqa: T201
    print(f"Ollama {found} answers through the tunnel, in {elapsed_ms:.0f} ms")  # noqa: T201


if __name__ == "__main__":
    main()
