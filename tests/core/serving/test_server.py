"""The server itself: ports, TLS, signals and shutdown."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.processes import bundle, fake_ollama, running, wait_for

CHAT = {"message": "hi", "model": "smollm2:135m"}


@pytest.fixture(scope="module")
def slow_ollama() -> Iterator[str]:
    with fake_ollama("--pace", "0.2") as url:
        yield url


@contextmanager
def serving(ollama: str, **environ: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    own = {"OLLAMA_BASE_URL": ollama, "PORT": "0", "WEB_PORT": "0", "LOG_FORMAT": "console"}
    with running("-m", "handlers", **{**own, **environ}) as process:
        yield process, wait_for(process.stdout, "Listening for the API on ")


@contextmanager
def streaming(url: str) -> Iterator[Iterator[str]]:
    """Start a stream and read its first line; the rest is left to the caller."""
    with (
        httpx.Client(trust_env=False, timeout=20) as client,
        client.stream("POST", f"{url}/api/chat/stream", json=CHAT) as answer,
    ):
        lines = answer.iter_lines()
        assert json.loads(next(lines))["done"] is False
        yield lines


def test_running_requests_finish_and_new_ones_get_a_503(slow_ollama: str) -> None:
    with serving(slow_ollama) as (process, url), streaming(url) as lines:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        refused = httpx.post(f"{url}/api/chat", json=CHAT, trust_env=False)
        assert refused.status_code == 503
        assert refused.headers["connection"] == "close"
        assert refused.headers["x-content-type-options"] == "nosniff"
        request_id = refused.headers["x-request-id"]
        assert int(refused.headers["retry-after"]) > 0
        assert refused.json()["error"].startswith("The server is stopping")
        rest = [json.loads(line) for line in lines]
        assert len(rest) == 6
        assert rest[-1]["done"] is True
        assert "context" in rest[-1]
        assert process.wait(timeout=10) == -signal.SIGTERM
        line = f"id={request_id} client= address=127.0.0.1 method=POST path=/api/chat status=503"
        wait_for(process.stdout, line)


def test_a_stream_that_outlasts_the_grace_period_ends_with_an_error_line(slow_ollama: str) -> None:
    with serving(slow_ollama, SHUTDOWN_GRACE_S="0.1") as (process, url), streaming(url) as lines:
        process.send_signal(signal.SIGTERM)
        last = [json.loads(line) for line in lines][-1]
        assert (last["success"], last["done"]) == (False, True)
        assert last["error"].startswith("The server is stopping")
        process.wait(timeout=15)


def test_an_idle_server_ends_at_once(slow_ollama: str) -> None:
    with serving(slow_ollama) as (process, url):
        with httpx.Client(trust_env=False) as client:
            client.get(f"{url}/api/health")
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=10)
        assert time.monotonic() - started < 3


def test_the_page_has_its_own_port_which_serves_the_api_too(slow_ollama: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serving(slow_ollama, WEB_PORT=str(port)) as (process, url):
        web = wait_for(process.stdout, "Listening for the chat page on ")
        assert web == f"http://127.0.0.1:{port}"
        for base in (url, web):
            assert httpx.get(f"{base}/api/health", trust_env=False).status_code == 200
            assert "<html" in httpx.get(f"{base}/", trust_env=False).text


def test_a_port_in_use_fails_startup_with_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        told = failed_start(HOST="127.0.0.1", PORT=str(taken.getsockname()[1]))
    assert told.startswith("Cannot listen on HOST and PORT: Address already in use")


def test_an_unopenable_log_file_fails_startup_with_one_line(tmp_path: Path) -> None:
    told = failed_start(LOG_FILE=str(tmp_path / "none" / "log"))
    assert told == "LOG_FILE cannot be opened: No such file or directory\n"


def failed_start(**environ: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "handlers"],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode == 1
    return ended.stderr


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return make_certificate(tmp_path, "one")


def make_certificate(folder: Path, name: str) -> Path:
    path = folder / "server.pem"
    self_signed = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name}"
    files = ["-keyout", f"{folder}/key", "-out", f"{folder}/cert"]
    command = [
        "openssl",
        *self_signed.split(),
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        *files,
    ]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes((folder / "key").read_bytes() + (folder / "cert").read_bytes())
    return path


def common_name(url: str) -> str:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    parsed = httpx.URL(url)
    assert parsed.port
    with (
        socket.create_connection((parsed.host, parsed.port)) as sock,
        context.wrap_socket(sock) as secure,
    ):
        der = secure.getpeercert(binary_form=True)
    return ssl.DER_cert_to_PEM_cert(der or b"")


def test_https_picks_up_a_renewed_certificate_without_a_restart(
    slow_ollama: str, certificate: Path
) -> None:
    with serving(slow_ollama, SSL_CERTFILE=str(certificate)) as (process, url):
        assert url.startswith("https://")
        context = ssl.create_default_context(cafile=certificate)
        with httpx.Client(verify=context, trust_env=False) as client:
            answer = client.get(f"{url}/api/health")
            assert answer.json()["status"] == "ok"
            assert answer.headers["strict-transport-security"].startswith("max-age=")
            old = common_name(url)
            make_certificate(certificate.parent, "two")
            process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + 5
            while common_name(url) == old:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert client.get(f"{url}/api/health").status_code == 200, "connections stay"
            certificate.write_text("broken")
            process.send_signal(signal.SIGHUP)
            wait_for(process.stdout, "The certificate cannot be loaded, keeping the old one")
            assert client.get(f"{url}/api/health").status_code == 200


def test_a_certificate_without_its_key_keeps_the_old_pair(
    slow_ollama: str, certificate: Path
) -> None:
    folder = certificate.parent
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes((folder / "cert").read_bytes())
    key.write_bytes((folder / "key").read_bytes())
    with serving(slow_ollama, SSL_CERTFILE=str(cert), SSL_KEYFILE=str(key)) as (process, url):
        old = common_name(url)
        make_certificate(folder, "two")
        cert.write_bytes((folder / "cert").read_bytes())
        process.send_signal(signal.SIGHUP)
        wait_for(process.stdout, "The certificate cannot be loaded, keeping the old one")
        assert common_name(url) == old
        key.write_bytes((folder / "key").read_bytes())
        process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 5
        while common_name(url) == old:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_keys_are_picked_up_without_a_restart(slow_ollama: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"

    def keys(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "core.keys", *arguments],
            env={**os.environ, "API_KEYS_FILE": str(path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    environ = {"API_KEYS_FILE": str(path), "ANONYMOUS_CLIENTS": "none"}
    with bundle(slow_ollama, **environ) as url, httpx.Client(trust_env=False) as client:

        def status(key: str) -> int:
            return client.get(f"{url}/api/models", headers={"X-API-Key": key}).status_code

        def becomes(key: str, expected: int) -> bool:
            deadline = time.monotonic() + 5
            while status(key) != expected:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            return True

        assert client.get(f"{url}/api/models").status_code == 401
        key = keys("create", "--name", "ci", "--models", "llama3.1:*")
        assert becomes(key, 200)
        listed = client.get(f"{url}/api/models", headers={"Authorization": f"Bearer {key}"})
        assert listed.json()["models"] == ["llama3.1:70b"]
        refused = client.post(f"{url}/api/chat", json=CHAT, headers={"X-API-Key": key})
        assert refused.status_code == 403
        keys("revoke", "ci")
        assert becomes(key, 401)


def test_systemd_hears_when_the_server_is_ready_alive_and_stopping(
    slow_ollama: str, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.settimeout(20)
        systemd.bind(str(tmp_path / "notify"))
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        with serving(slow_ollama, **environ) as (process, url):
            assert systemd.recv(100) == b"READY=1"
            assert httpx.get(f"{url}/api/health", trust_env=False).status_code == 200
            for _ in range(3):
                assert systemd.recv(100) == b"WATCHDOG=1"
            process.send_signal(signal.SIGTERM)
            while (told := systemd.recv(100)) == b"WATCHDOG=1":
                pass
            assert told == b"STOPPING=1"
            process.wait(timeout=10)


def test_a_socket_of_systemd_that_is_gone_does_not_matter(slow_ollama: str) -> None:
    with serving(slow_ollama, NOTIFY_SOCKET="@nobody", WATCHDOG_USEC="200000") as (_, url):
        assert httpx.get(f"{url}/api/health", trust_env=False).status_code == 200
