"""`python -m core.doctor`, run as operators do, beside a server with faults to find."""

import asyncio
import json
import ssl
import sys
from collections import deque
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from core.doctor import access
from core.keys.editing import create
from core.settings.schema import Settings
from tests.conftest import Serve
from tests.fake_ollama import FakeOllama, error, page, whole
from tests.processes import running, wait_for
from tests.programs import free_ports, program
from tests.raw_server import Reply
from tests.redis_server import RedisServer

MODEL = "smollm2:135m"


def always(fake: FakeOllama, path: str, reply: Reply) -> None:
    """Answer every request for `path` with `reply` from now on."""
    fake._replies[path] = deque([reply] * 100)


async def doctor(*arguments: str, **environ: str) -> tuple[int, str]:
    """Return the exit status and the output of the doctor, with nothing but `environ` set."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "core.doctor", *arguments),
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def findings(**environ: str) -> tuple[int, dict[str, list[tuple[str, str]]]]:
    status, output = await doctor("--json", **environ)
    report = json.loads(output)
    assert report["ok"] is (status == 0)
    found: dict[str, list[tuple[str, str]]] = {}
    for finding in report["findings"]:
        assert finding["level"] == "ok" or finding["advice"]
        found.setdefault(finding["check"], []).append((finding["level"], finding["text"]))
    return status, found


@pytest.fixture
async def healthy(serve: Serve, fake: FakeOllama, tmp_path: Path) -> dict[str, str]:
    """The settings of a server with nothing wrong."""
    port = httpx.URL(await serve()).port
    keys = tmp_path / "keys.json"
    create(keys, "me")
    always(fake, "/api/version", whole(200, "application/json", b'{"version":"0.33.1"}'))
    return {
        "OLLAMA_BASE_URL": fake.url,
        "DEFAULT_MODEL": MODEL,
        "PORT": str(port),
        "WEB_PORT": "0",
        "API_KEYS_FILE": str(keys),
    }


async def test_a_healthy_server_has_no_problem(healthy: dict[str, str]) -> None:
    status, found = await findings(**healthy)
    assert status == 0
    levels = {level for entries in found.values() for level, _ in entries}
    assert "problem" not in levels
    assert found["ollama"] == [("ok", "version 0.33.1 answers")]
    assert found["models"] == [("ok", f"2 installed, the default {MODEL} among them")]
    assert found["ports"][0][0] == "ok"
    assert found["access"] == [("ok", "strangers need a key or a token")]
    status, text = await doctor(**healthy)
    assert status == 0
    assert "ok    ollama     version 0.33.1 answers\n" in text


async def test_an_ollama_that_is_down_old_or_another_server_is_found(
    healthy: dict[str, str], fake: FakeOllama
) -> None:
    always(fake, "/api/version", whole(200, "application/json", b'{"version":"0.24.0-rc1"}'))
    _, found = await findings(**healthy)
    ((level, text),) = found["ollama"]
    assert level == "warning"
    assert "token id" in text
    assert "JSON schemas" in text
    always(fake, "/api/version", page(200))
    status, found = await findings(**healthy)
    assert (status, found["ollama"][0][0]) == (1, "problem")
    nobody, other = free_ports(2)
    healthy["OLLAMA_BASE_URL"] = f"http://127.0.0.1:{nobody}"
    status, found = await findings(**{**healthy, "PORT": str(other)})
    assert status == 1
    assert "no Ollama answers at" in found["ollama"][0][1]
    assert "models" not in found


async def test_a_server_with_the_built_in_model_has_no_problem(
    healthy: dict[str, str], fake: FakeOllama
) -> None:
    (nobody,) = free_ports(1)
    status, found = await findings(**healthy | {"OLLAMA_BASE_URL": f"http://127.0.0.1:{nobody}"})
    assert (status, found["ollama"][0][0]) == (0, "warning")
    assert "runs the built-in model" in found["ollama"][0][1]


async def test_what_its_models_lack_is_found(healthy: dict[str, str], fake: FakeOllama) -> None:
    status, found = await findings(**{**healthy, "DEFAULT_MODEL": "none:70b"})
    assert (status, found["models"][0][0]) == (1, "problem")
    loaded = {"name": MODEL, "size": 1000, "size_vram": 250, "context_length": 8192}
    for change, level, text in (
        ({}, "warning", "25% of it on the GPU, context 8192"),
        ({"size_vram": 0}, "warning", "entirely on the CPU"),
        ({"size_vram": 1000}, "ok", "is on the GPU, context 8192"),
        ({"size_vram": 1000, "context_length": 4096}, "warning", "long conversations are refused"),
    ):
        body = json.dumps({"models": [{**loaded, **change}]}).encode()
        always(fake, "/api/ps", whole(200, "application/json", body))
        _, found = await findings(**healthy)
        assert found["gpu"][0][0] == level
        assert text in found["gpu"][0][1]
    always(fake, "/api/tags", error(500, "boom"))
    status, found = await findings(**healthy)
    assert (status, found["models"][0][0]) == (1, "problem")


@pytest.mark.parametrize(
    ("host", "clients"), [("127.0.0.2", "127.0.0.0/8"), ("127.0.0.1", "192.0.2.0/24")]
)
async def test_a_server_is_recognized_at_its_own_address_and_if_it_lets_nobody_here_in(
    healthy: dict[str, str], host: str, clients: str
) -> None:
    environ = {**healthy, "HOST": host, "PORT": "0", "ALLOWED_CLIENTS": clients}
    with running("-m", "handlers", **environ, LOG_FORMAT="console") as process:
        heard = await asyncio.to_thread(wait_for, process.stdout, "Listening for the API on ")
        url = httpx.URL(heard)
        assert url.host == host
        _, found = await findings(**{**healthy, "HOST": host, "PORT": str(url.port)})
    assert found["ports"] == [("ok", f"this gateway answers on PORT {url.port}")]


async def test_a_server_without_a_default_model_is_as_good(
    healthy: dict[str, str], fake: FakeOllama
) -> None:
    del healthy["DEFAULT_MODEL"]
    status, found = await findings(**healthy)
    text = "2 installed, llama3.1:70b among them, which is the default"
    assert (status, found["models"]) == (0, [("ok", text)])
    for models, expected in (
        ([MODEL], (0, "1 installed; DEFAULT_MODEL is unset, so one of them is used")),
        ([], (1, "none is installed")),
    ):
        body = json.dumps({"models": [{"name": name} for name in models]}).encode()
        always(fake, "/api/tags", whole(200, "application/json", body))
        status, found = await findings(**healthy)
        assert (status, found["models"][0][1]) == expected


async def test_an_ollama_that_others_reach_too_is_found(
    fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(ollama_base_url=fake.url)
    for address, count in (("127.0.0.1", 1), ("127.0.0.2", 0), ("", 0)):
        monkeypatch.setattr(access, "_own_address", lambda address=address: address)
        found = await asyncio.to_thread(lambda: list(access.examine(settings)))
        open_ones = [finding for finding in found if "asks for no key" in finding.text]
        assert [finding.level for finding in open_ones] == ["warning"] * count


async def test_a_clock_that_is_not_synchronized_is_found(
    healthy: dict[str, str], tmp_path: Path
) -> None:
    timedatectl = tmp_path / "timedatectl"
    for answer, expected in (("no", True), ("yes", False), ("", False)):
        timedatectl.write_text(f"#!/bin/sh\necho {answer}\n", "utf-8")
        timedatectl.chmod(0o700)
        _, found = await findings(**healthy, PATH=f"{tmp_path}:/usr/bin:/bin")
        assert any("not synchronized" in text for _, text in found["clock"]) is expected


async def test_a_store_is_asked_with_its_password(healthy: dict[str, str], tmp_path: Path) -> None:
    program("redis-server", "apt install redis-server")
    options = ["--requirepass", "right", "--user", "few", "on", ">own", "~*", "+@all", "-ping"]
    redis = await asyncio.to_thread(RedisServer, tmp_path, *options)
    try:
        for password, number, expected in (
            (":right@", "", ("ok", "answers")),
            ("few:own@", "", ("ok", "answers")),
            (":wrong@", "", ("problem", "wants another password, so there are no limits")),
            ("", "", ("problem", "wants another password, so there are no limits")),
            (":right@", "/99", ("problem", "refuses its clients (DB index is out of range), so")),
        ):
            url = redis.url.replace("//", f"//{password}") + number
            _, found = await findings(**healthy, RATE_LIMIT_STORAGE=url)
            ((level, text),) = found["store"]
            assert level == expected[0]
            assert text.startswith(f"RATE_LIMIT_STORAGE {expected[1]}")
    finally:
        redis.stop()


async def test_a_limit_of_files_that_is_low_is_found(healthy: dict[str, str]) -> None:
    for limit, level in ((1024, "warning"), (8192, "ok")):
        limited = f"ulimit -n {limit}; exec {sys.executable} -m core.doctor --json"
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", limited), env=healthy, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        (found,) = [f for f in json.loads(output)["findings"] if f["check"] == "files"]
        assert (found["level"], str(limit) in found["text"]) == (level, True)


async def test_the_certificate_of_a_tunnel_is_looked_at(
    healthy: dict[str, str], tmp_path: Path
) -> None:
    make_certificate(tmp_path, 7)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, found = await findings(**{**healthy, "OLLAMA_BASE_URL": f"https://127.0.0.1:{port}"})
    assert ("warning", "OLLAMA_BASE_URL's expires in 7 days") in found["certificate"]


@pytest.mark.parametrize(("days", "level"), [(90, "ok"), (7, "warning"), (-1, "problem")])
async def test_a_certificate_that_ends_is_found(
    healthy: dict[str, str], tmp_path: Path, days: int, level: str
) -> None:
    make_certificate(tmp_path, days)
    pair = {
        "SSL_CERTFILE": str(tmp_path / "cert.pem"),
        "SSL_KEYFILE": str(tmp_path / "key.pem"),
    }
    _, found = await findings(**healthy, **pair)
    assert [level for level, _ in found["certificate"]] == [level]


async def test_a_certificate_that_does_not_fit_its_key_is_found(
    healthy: dict[str, str], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        make_certificate(tmp_path / name, 90)
    pair = {
        "SSL_CERTFILE": str(tmp_path / "one/cert.pem"),
        "SSL_KEYFILE": str(tmp_path / "two/key.pem"),
    }
    status, found = await findings(**healthy, **pair)
    assert status == 1
    assert ("problem", "SSL_KEYFILE does not fit SSL_CERTFILE") in [
        (level, text.partition(":")[0]) for level, text in found["certificate"]
    ]
    assert "settings" not in found, "they are called valid, or the problem is reported twice"


def make_certificate(folder: Path, days: int, *, age_days: int = 30) -> None:
    """Create one that became valid `age_days` ago, and expires in `days`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=age_days))
        .not_valid_after(now + timedelta(days=days, hours=1))
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
