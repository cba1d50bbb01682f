"""What the check reports about a tunnel in each state."""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from core.app import create_app
from core.settings.environment import SettingsError
from core.settings.schema import Settings
from deploy.tunnel.check import Broken, expiring, version
from handlers import chat
from tests.deploy.tunnel.loopback import Relay, Tunnel, make_certificates
from tests.fake_ollama import FakeOllama, never_answers, page
from tests.programs import ROOT, free_ports

QUICK_S = 1


async def verdict(relay: Relay, **values: Any) -> str:
    """Return the check's finding for a client with the relay's settings, changed by `values`."""
    settings = Settings(**{**relay.settings, "ollama_connect_timeout_s": 1, **values})
    with pytest.raises(Broken) as broken:
        await version(settings, QUICK_S)
    return str(broken.value)


async def test_a_tunnel_that_works(relay: Relay, tunnel: Tunnel) -> None:
    assert await version(Settings(**relay.settings)) == "0.24.0"


async def test_a_name_without_address(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    text = await verdict(relay, ollama_base_url="https://relay.example.com")
    assert text.startswith("DNS has no address for relay.example.com")


async def test_a_relay_that_does_not_listen(relay: Relay) -> None:
    (port,) = free_ports(1)
    text = await verdict(relay, ollama_base_url=f"https://localhost:{port}")
    assert f"localhost accepts no connection on port {port}" in text


async def test_a_relay_that_does_not_react(relay: Relay) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent, socket.socket() as filler:
        filler.connect(silent.getsockname())
        port = silent.getsockname()[1]
        text = await verdict(relay, ollama_base_url=f"https://127.0.0.1:{port}")
    assert "does not react at all" in text
    assert f"port {port}" in text


async def test_a_port_without_tls(relay: Relay) -> None:
    text = await verdict(relay, ollama_base_url=f"https://localhost:{relay.ssh_port}")
    assert f"localhost does not speak TLS on port {relay.ssh_port}" in text


async def test_a_base_url_without_tls(relay: Relay) -> None:
    text = await verdict(relay, ollama_base_url=relay.url.replace("https:", "http:"))
    assert "OLLAMA_BASE_URL must begin with https:" in text


async def test_another_authority(relay: Relay, tmp_path: Path) -> None:
    make_certificates("localhost", tmp_path)
    text = await verdict(relay, ollama_ca_file=str(tmp_path / "ca.crt"))
    assert "not trusted" in text
    assert "OLLAMA_CA_FILE" in text


async def test_a_certificate_for_another_name(relay: Relay) -> None:
    text = await verdict(relay, ollama_base_url=f"https://127.0.0.1:{relay.https_port}")
    assert text.startswith("the relay's certificate is not for 127.0.0.1")


async def test_a_certificate_that_has_expired(relay: Relay, tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    expired = certificate(relay, tmp_path, "relay/server.crt", -1)
    context.load_cert_chain(expired, relay.made / "relay/server.key")
    async with await asyncio.start_server(print, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"https://localhost:{port}"
        text = await verdict(relay, ollama_base_url=url)
        app = create_app(chat.routes, Settings(**{**relay.settings, "ollama_base_url": url}))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.post("/api/chat", json={"message": "안녕"})
    assert "has expired" in text
    assert answer.status_code == 500
    assert "the certificate at its address is not valid (certificate has expired)" in answer.text


def certificate(relay: Relay, folder: Path, name: str, days: int) -> Path:
    """Create one like the relay's `name` that ends in `days`, which openssl cannot in the past."""
    own = x509.load_pem_x509_certificate((relay.made / name).read_bytes())
    key = load_pem_private_key((relay.made / "ca.key").read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    end = datetime.now(UTC) + timedelta(days=days, hours=1)
    builder = x509.CertificateBuilder(
        own.issuer,
        own.subject,
        own.public_key(),
        own.serial_number,
        end - timedelta(days=730),
        end,
        list(own.extensions),
    )
    path = folder / f"{days}.crt"
    path.write_bytes(builder.sign(key, SHA256()).public_bytes(Encoding.PEM))
    return path


async def test_a_missing_client_certificate(relay: Relay) -> None:
    assert "wants a client certificate" in await verdict(relay, ollama_client_cert="")


async def test_the_client_certificate_of_another_authority(relay: Relay, tmp_path: Path) -> None:
    make_certificates("localhost", tmp_path)
    pair = tmp_path / "client"
    values = {
        "ollama_client_cert": str(pair / "client.crt"),
        "ollama_client_key": str(pair / "client.key"),
    }
    assert "refuses this client certificate" in await verdict(relay, **values)


async def test_files_that_are_not_there(relay: Relay) -> None:
    values = {**relay.settings, "ollama_client_key": "/nowhere.key"}
    with pytest.raises(SettingsError, match="OLLAMA_CLIENT_KEY"):
        await version(Settings(**values))


@pytest.mark.parametrize("headers", [{}, {"X-Tunnel-Token": "0" * 32}])
async def test_a_wrong_token(relay: Relay, headers: dict[str, str]) -> None:
    assert "wants another X-Tunnel-Token" in await verdict(relay, ollama_headers=headers)


async def test_a_tunnel_that_is_down(relay: Relay) -> None:
    assert "no tunnel from the Ollama machine" in await verdict(relay)


async def test_a_tunnel_that_hangs(relay: Relay, tunnel: Tunnel) -> None:
    tunnel.signal(signal.SIGSTOP)
    text = await verdict(relay)
    assert "the tunnel hangs" in text


async def test_an_ollama_that_is_not_running(
    relay: Relay, tunnel: Tunnel, fake: FakeOllama
) -> None:
    await fake.stop()
    async with asyncio.timeout(60):
        while "Is Ollama running" not in (text := await verdict(relay)):
            assert "or Ollama is not running there" in text  # a busy nginx knows no better
    assert "no tunnel" not in text


async def test_another_program_at_the_tunnels_port(relay: Relay) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ESMTP\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", relay.tunnel_port):
        text = await verdict(relay)
    assert "is not Ollama" in text


async def test_certificates_that_end_soon(relay: Relay, tmp_path: Path) -> None:
    settings = Settings(**relay.settings)
    assert await asyncio.to_thread(expiring, settings) == []
    two_years = await asyncio.to_thread(expiring, settings, 731)
    assert [text.partition(" expires on ")[0] for text in two_years] == [
        "the certificate in OLLAMA_CLIENT_CERT",
        "the relay's certificate",
    ]
    assert len(await asyncio.to_thread(expiring, settings, 3651)) == 3


async def test_the_warning_comes_30_days_before(relay: Relay, tmp_path: Path) -> None:
    for days, count in ((31, 0), (29, 1)):
        path = certificate(relay, tmp_path, "client/client.crt", days)
        settings = Settings(**{**relay.settings, "ollama_client_cert": str(path)})
        assert len(await asyncio.to_thread(expiring, settings)) == count


async def test_a_key_that_does_not_fit_its_certificate(relay: Relay, tmp_path: Path) -> None:
    make_certificates("localhost", tmp_path)
    values = {**relay.settings, "ollama_client_key": str(tmp_path / "client/client.key")}
    with pytest.raises(SettingsError, match="OLLAMA_CLIENT_KEY does not fit OLLAMA_CLIENT_CERT"):
        await version(Settings(**values))


async def test_an_ollama_that_hangs(relay: Relay, tunnel: Tunnel, fake: FakeOllama) -> None:
    fake.reply(never_answers, path="/api/version")
    assert "nothing came back" in await verdict(relay)


async def test_something_else_in_the_place_of_ollama(
    relay: Relay, tunnel: Tunnel, fake: FakeOllama
) -> None:
    fake.reply(page(200), path="/api/version")
    assert "not Ollama" in await verdict(relay)
    fake.reply(page(404), path="/api/version")
    assert "no Ollama found at this address" in await verdict(relay)


def check(relay: Relay, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the check with the settings in tunnel.env, as the README says."""
    script = 'set -a; . "$0"; set +a; exec "$@"'
    settings = str(relay.made / "client/tunnel.env")
    return subprocess.run(
        ["bash", "-c", script, settings, sys.executable, "-m", "deploy.tunnel.check", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


async def test_the_command_says_that_all_is_well(relay: Relay, tunnel: Tunnel) -> None:
    result = await asyncio.to_thread(check, relay)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Ollama 0.24.0 answers through the tunnel, in ")
    assert not result.stderr


def test_the_command_says_what_is_wrong_in_one_line(relay: Relay) -> None:
    result = check(relay, "--timeout", "5")
    assert result.returncode == 1
    assert "no tunnel from the Ollama machine" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not result.stdout
    assert relay.token not in result.stderr
