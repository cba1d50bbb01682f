"""The server itself: ports, TLS, signals and shutdown."""

import asyncio
import json
import os
import resource
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

from tests.conftest import Serve
from tests.fake_ollama import TOKENS, FakeOllama, Lockstep, tokens
from tests.processes import bundle, fake_ollama, running, wait_for
from tests.programs import ROOT, free_ports

CHAT = {"message": "hi", "model": "smollm2:135m"}


@pytest.fixture(scope="module")
def slow_ollama() -> Iterator[str]:
    with fake_ollama("--pace", "0.4") as url:
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


async def test_running_requests_finish_and_new_ones_get_a_503(fake: FakeOllama) -> None:
    lockstep = Lockstep(TOKENS)
    fake.reply(lockstep)
    with serving(fake.url) as (process, url):
        async with (
            httpx.AsyncClient(trust_env=False, timeout=20) as client,
            client.stream("POST", f"{url}/api/chat/stream", json=CHAT) as answer,
        ):
            lines = answer.aiter_lines()
            assert json.loads(await anext(lines))["done"] is False
            process.send_signal(signal.SIGTERM)
            async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as other:
                while (await other.get("/api/health")).status_code == 200:
                    pass
                refused = await other.post("/api/chat", json=CHAT)
            for _ in TOKENS:
                lockstep.next()
            rest = [json.loads(line) async for line in lines]
        assert refused.status_code == 503
        assert refused.headers["connection"] == "close"
        assert refused.headers["x-content-type-options"] == "nosniff"
        request_id = refused.headers["x-request-id"]
        assert int(refused.headers["retry-after"]) > 0
        assert refused.json()["error"].startswith("The server is stopping")
        assert len(rest) == len(TOKENS)
        assert rest[-1]["done"] is True
        assert "context" in rest[-1]
        assert process.wait(timeout=20) == -signal.SIGTERM
        line = f"id={request_id} client= address=127.0.0.1 method=POST path=/api/chat status=503"
        wait_for(process.stdout, line)


def test_a_stream_that_outlasts_the_grace_period_ends_with_an_error_line(slow_ollama: str) -> None:
    with serving(slow_ollama, SHUTDOWN_GRACE_S="0.1") as (process, url), streaming(url) as lines:
        process.send_signal(signal.SIGTERM)
        last = [json.loads(line) for line in lines][-1]
        assert (last["success"], last["done"]) == (False, True)
        assert last["error"].startswith("The server is stopping")
        process.wait(timeout=15)


@pytest.mark.parametrize(("grace_s", "limit_s"), [("0.1", 4.5), ("30", 15)])
async def test_a_client_that_does_not_read_does_not_lengthen_the_grace_period(
    fake: FakeOllama, grace_s: str, limit_s: float
) -> None:
    fake.reply(tokens(["x" * 1000] * 20_000))
    request = httpx.Request("POST", "http://localhost/api/chat/stream", json=CHAT)
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with serving(fake.url, SHUTDOWN_GRACE_S=grace_s) as (process, url):
        reader, writer = await asyncio.open_connection(httpx.URL(url).host, httpx.URL(url).port)
        writer.write(f"POST /api/chat/stream HTTP/1.1\r\n{head}\r\n".encode() + request.content)
        assert (await reader.read(9)).startswith(b"HTTP/1.1")
        await asyncio.sleep(0.5)  # until all buffers are full
        process.send_signal(signal.SIGTERM)
        if grace_s == "30":
            await asyncio.sleep(0.3)
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(limit_s):
            await asyncio.to_thread(process.wait)
        writer.transport.abort()


STOPPED_WHILE_IT_STARTS = """
import os, signal
from handlers import __main__, asgi

assemble = asgi.app._assemble

def stop_and_assemble():
    asgi.app._assemble = assemble
    os.kill(os.getpid(), signal.SIGTERM)
    return assemble()

asgi.app._assemble = stop_and_assemble
__main__.main([])
"""


def test_a_signal_while_it_starts_ends_it(slow_ollama: str) -> None:
    own = {"OLLAMA_BASE_URL": slow_ollama, "PORT": "0", "WEB_PORT": "0"}
    with running("-c", STOPPED_WHILE_IT_STARTS, **own) as process:
        assert process.wait(timeout=40) == -signal.SIGTERM


def test_ctrl_c_ends_it_without_a_traceback(slow_ollama: str) -> None:
    with serving(slow_ollama) as (process, url), streaming(url) as lines:
        process.send_signal(signal.SIGINT)
        assert json.loads([*lines][-1])["done"] is True
        assert process.wait(timeout=20) == -signal.SIGINT
        assert process.stderr
        assert process.stderr.read() == ""


def test_two_ctrl_cs_end_it_at_once_without_a_traceback(slow_ollama: str) -> None:
    with serving(slow_ollama) as (process, url), streaming(url) as lines:
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        assert json.loads([*lines][-1])["done"] is True
        assert process.wait(timeout=20) == -signal.SIGINT
        assert process.stderr
        assert process.stderr.read() == ""


def test_sighup_during_the_imports_does_not_end_it(slow_ollama: str) -> None:
    own = {"OLLAMA_BASE_URL": slow_ollama, "PORT": "0", "WEB_PORT": "0", "LOG_FORMAT": "console"}
    with running("-m", "handlers", **own) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        while "msgspec" not in maps.read_text():
            time.sleep(0.001)
        for _ in range(30):
            process.send_signal(signal.SIGHUP)
            time.sleep(0.01)
        url = wait_for(process.stdout, "Listening for the API on ")
        assert httpx.get(f"{url}/api/health", trust_env=False).status_code == 200


def test_an_idle_server_ends_at_once(slow_ollama: str) -> None:
    with (
        serving(slow_ollama, SHUTDOWN_GRACE_S="100") as (process, url),
        httpx.Client(trust_env=False) as client,
    ):
        client.get(f"{url}/api/health")
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


def test_the_page_has_its_own_port_which_serves_the_api_too(slow_ollama: str) -> None:
    (port,) = free_ports(1)
    with serving(slow_ollama, WEB_PORT=str(port)) as (process, url):
        web = wait_for(process.stdout, "Listening for the chat page on ")
        assert web == f"http://127.0.0.1:{port}"
        for base in (url, web):
            assert httpx.get(f"{base}/api/health", trust_env=False).status_code == 200
            assert "<html" in httpx.get(f"{base}/", trust_env=False).text


def test_a_port_in_use_fails_startup_with_one_line(slow_ollama: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        told = failed_start(slow_ollama, PORT=str(taken.getsockname()[1]))
    assert told.startswith("Cannot listen on HOST and PORT: Address already in use")


def test_an_unopenable_log_file_fails_startup_with_one_line(
    slow_ollama: str, tmp_path: Path
) -> None:
    told = failed_start(slow_ollama, LOG_FILE=str(tmp_path / "none" / "log"))
    assert told == "LOG_FILE cannot be opened: No such file or directory\n"


def test_a_start_that_fails_has_not_said_that_it_listens(slow_ollama: str) -> None:
    told = failed_start(slow_ollama, PORT="0", WEB_PORT="0", JWT_PUBLIC_KEY_FILE="/none")
    assert told == "JWT_PUBLIC_KEY_FILE cannot be read: No such file or directory\n"


def failed_start(ollama: str, **environ: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "handlers"],
        env={**os.environ, "OLLAMA_BASE_URL": ollama, "HOST": "127.0.0.1", **environ},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ended.returncode == 1
    assert "Listening" not in ended.stdout
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
            deadline = time.monotonic() + 20
            while common_name(url) == old:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert client.get(f"{url}/api/health").status_code == 200, "connections stay"
            certificate.write_text("broken")
            process.send_signal(signal.SIGHUP)
            wait_for(process.stdout, "The certificate cannot be loaded, keeping the old one")
            assert client.get(f"{url}/api/health").status_code == 200


def test_a_connection_over_tls_serves_another_request_after_a_slow_one(
    slow_ollama: str, certificate: Path
) -> None:
    with serving(slow_ollama, SSL_CERTFILE=str(certificate)) as (_, url):
        context = ssl.create_default_context(cafile=certificate)
        with httpx.Client(verify=context, trust_env=False) as client:
            for _ in range(2):
                answer = client.post(f"{url}/api/chat/stream", json={"message": "hi"})
                assert json.loads(answer.text.splitlines()[-1])["done"] is True
                assert "error" not in answer.text


@pytest.mark.parametrize("tls", [False, True])
async def test_with_asyncios_own_loop_it_is_the_same(
    serve: Serve, fake: FakeOllama, certificate: Path, tls: bool
) -> None:
    url = await serve(ssl_certfile=str(certificate) if tls else "")
    scheme = "https" if tls else "http"
    context = ssl.create_default_context(cafile=certificate)
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        for _ in range(2):
            fake.reply(tokens(["a", "b"], pace_s=0.1))
            endpoint = url.replace("http", scheme, 1) + "/api/chat/stream"
            answer = await client.post(endpoint, json={"message": "hi"})
            assert json.loads(answer.text.splitlines()[-1])["done"] is True
            assert "error" not in answer.text


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("allowed", ["0.0.0.0/0", "192.0.2.0/24"])
def test_a_container_is_healthy_with_and_without_https_and_whoever_may_call(
    slow_ollama: str, certificate: Path, tls: bool, allowed: str
) -> None:
    containerfile = (ROOT / "deploy/Containerfile").read_text("utf-8")
    _, *check = json.loads(
        containerfile.partition("HEALTHCHECK ")[2].partition(" CMD ")[2].partition("\n")[0]
    )
    environ = {"SSL_CERTFILE": str(certificate)} if tls else {}
    environ["ALLOWED_CLIENTS"] = allowed
    with serving(slow_ollama, **environ) as (_, url):
        environ["PORT"] = url.rpartition(":")[2]
        subprocess.run([sys.executable, *check], env=os.environ | environ, check=True, timeout=20)


def test_a_key_without_its_certificate_is_refused_in_one_line(certificate: Path) -> None:
    with running("-m", "handlers", SSL_KEYFILE=str(certificate), PORT="0") as process:
        wait_for(process.stderr, "SSL_KEYFILE needs SSL_CERTFILE")
        assert process.stderr
        assert process.stderr.read() == ""


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
        deadline = time.monotonic() + 20
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
            deadline = time.monotonic() + 20
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
            process.wait(timeout=20)


def test_a_socket_of_systemd_that_is_gone_does_not_matter(slow_ollama: str) -> None:
    with serving(slow_ollama, NOTIFY_SOCKET="@nobody", WATCHDOG_USEC="200000") as (_, url):
        assert httpx.get(f"{url}/api/health", trust_env=False).status_code == 200


@contextmanager
def limited(ollama: str, limit: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve with a limit on open files, given in the words of `ulimit`."""
    own = {"OLLAMA_BASE_URL": ollama, "PORT": "0", "WEB_PORT": "0", "LOG_FORMAT": "console"}
    enter = "import os, sys; os.execvp('bash', ['bash', '-c', *sys.argv[1:]])"
    script = f'ulimit {limit}; exec "$0" -m handlers'
    with running("-c", enter, script, sys.executable, **own) as process:
        yield process, wait_for(process.stdout, "Listening for the API on ")


def test_as_many_files_may_be_open_as_the_hard_limit_allows(slow_ollama: str) -> None:
    with limited(slow_ollama, "-Sn 64") as (process, url):
        httpx.get(f"{url}/api/health", trust_env=False)
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        assert soft == hard > 64


def test_running_out_of_descriptors_is_called_that(slow_ollama: str) -> None:
    with serving(slow_ollama) as (process, url), httpx.Client(trust_env=False) as client:
        assert client.get(f"{url}/api/openapi.json").status_code == 200
        before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (8, before[1]))
        wait_for(process.stdout, "New clients are turned away: Too many open files")
        told = client.post(f"{url}/api/chat", json=CHAT)  # on the connection that it has kept
        assert told.status_code == 500
        assert "no file descriptor left" in told.json()["error"]
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
        wait_for(process.stdout, "New clients can connect again")
        assert client.post(f"{url}/api/chat", json=CHAT).status_code == 200
