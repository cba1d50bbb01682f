"""The certificates and the token that certificates.sh creates."""

import os
import re
import ssl
import stat
import subprocess
from pathlib import Path

import pytest

from tests.deploy.tunnel.loopback import FILES, make_certificates, settings_of
from tests.programs import program


@pytest.fixture
def made(tmp_path: Path) -> Path:
    make_certificates("relay.example.com:8443", tmp_path / "made")
    return tmp_path / "made"


def shake_hands(server: Path, client: Path, name: str) -> None:
    """Give a relay `server`'s files and a client `client`'s."""
    ours = ssl.create_default_context(cafile=client / "ca.crt")
    # The default from Python 3.13 on, which is Lambda's.
    ours.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    ours.load_cert_chain(client / "client.crt", client / "client.key")
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=server / "ca.crt")
    theirs.verify_mode = ssl.CERT_REQUIRED
    theirs.verify_flags |= ssl.VERIFY_X509_STRICT
    theirs.load_cert_chain(server / "server.crt", server / "server.key")
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        ours.wrap_bio(to_client, to_server, server_hostname=name),
        theirs.wrap_bio(to_server, to_client, server_side=True),
    ]
    while ends:
        try:
            ends[0].do_handshake()
            del ends[0]
        except ssl.SSLWantReadError:
            ends.reverse()


def test_relay_and_client_know_each_other(made: Path) -> None:
    shake_hands(made / "relay", made / "client", "relay.example.com")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(made / "relay", made / "client", "other.example.com")


def test_a_relay_may_have_an_address_only(tmp_path: Path) -> None:
    make_certificates("192.0.2.7", tmp_path)
    shake_hands(tmp_path / "relay", tmp_path / "client", "192.0.2.7")


def test_a_machine_that_takes_long_for_a_key_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "bin/openssl"
    slow.parent.mkdir()
    openssl = program("openssl", "apt install openssl")
    slow.write_text(f'#!/bin/sh\n[ "$1" != genpkey ] || sleep 1\nexec {openssl} "$@"\n', "utf-8")
    slow.chmod(0o700)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    make_certificates("relay.example.com", tmp_path)
    shake_hands(tmp_path / "relay", tmp_path / "client", "relay.example.com")


def test_the_clients_settings_are_complete(made: Path) -> None:
    settings = settings_of(made / "client")
    assert settings["ollama_base_url"] == "https://relay.example.com:8443"
    assert Path(settings["ollama_ca_file"]) == made / "client/ca.crt"
    assert Path(settings["ollama_client_cert"]) == made / "client/client.crt"
    assert Path(settings["ollama_client_key"]) == made / "client/client.key"
    token = settings["ollama_headers"]["X-Tunnel-Token"]
    assert re.fullmatch("[0-9a-f]{32}", token)
    assert (made / "relay/token.map").read_text("utf-8") == f'"{token}" 1;\n'


@pytest.mark.parametrize("name", ["O'Brien's", '`a` "b" $c \\d', "터널"])
def test_a_folder_may_have_any_sign_in_its_name(tmp_path: Path, name: str) -> None:
    make_certificates("relay.example.com", tmp_path / name)
    shell = (
        '. "$0" && printf %s "$OLLAMA_CA_FILE" && cat "$OLLAMA_CLIENT_CERT" "$OLLAMA_CLIENT_KEY"'
    )
    client = tmp_path / name / "client"
    read = subprocess.run(
        ["sh", "-c", shell, client / "tunnel.env"], capture_output=True, text=True, check=True
    )
    assert read.stdout.startswith(f"{client}/ca.crt-----BEGIN CERTIFICATE-----")


def test_only_the_owner_may_read_the_files(made: Path) -> None:
    modes = {path: path.stat().st_mode for path in (made, *made.rglob("*"))}
    assert {made / "ca.key", made / "relay/token.map", made / "client/tunnel.env"} < modes.keys()
    assert set(modes.values()) == {stat.S_IFREG | 0o600, stat.S_IFDIR | 0o700}


def test_a_renewal_keeps_the_authority_and_the_token(made: Path) -> None:
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    make_certificates("relay.example.com:8443", made)
    changed = {path.name for path, content in before.items() if path.read_bytes() != content}
    assert changed == {"client.crt", "client.key", "server.crt", "server.key"}
    shake_hands(made / "relay", made / "client", "relay.example.com")


def test_a_second_token_takes_the_place_of_the_first(made: Path) -> None:
    tokens = made / "relay/token.map"
    tokens.write_text(tokens.read_text("utf-8") + f'"{"f" * 32}" 1;\n', "utf-8")
    make_certificates("relay.example.com:8443", made)
    assert settings_of(made / "client")["ollama_headers"] == {"X-Tunnel-Token": "f" * 32}


@pytest.mark.parametrize("arguments", [[], ["relay.example.com"], ["https://relay", "folder"]])
def test_an_invalid_relay_is_refused(tmp_path: Path, arguments: list[str]) -> None:
    command: list[str | Path] = [FILES / "certificates.sh", *arguments]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr
    assert not list(tmp_path.iterdir())
