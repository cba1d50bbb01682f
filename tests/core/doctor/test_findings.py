"""Every finding of the doctor, and a cause that brings it about."""

import ast
import asyncio
import json
import resource
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import httpx
import pytest

from core.doctor import access, ollama
from core.doctor.__main__ import main
from core.keys.editing import create
from core.settings.schema import Settings
from tests.conftest import Serve
from tests.core.doctor.test_main import MODEL, always, make_certificate
from tests.fake_ollama import FakeOllama, error, never_answers, whole
from tests.programs import ROOT, free_ports

OLLAMAS_TIME = datetime(2026, 11, 23, 7, 47, 56, tzinfo=UTC)
"""As the fake says."""
TOKEN = json.dumps({"X-Tunnel-Token": "0123456789abcdef"})


@dataclass
class Site:
    """A server at which nothing is wrong, until a cause is added."""

    environ: dict[str, str]
    fake: FakeOllama
    folder: Path
    patch: pytest.MonkeyPatch
    open: ExitStack = field(default_factory=ExitStack)

    def ollama_says(self, path: str, answer: Any) -> None:
        body = json.dumps(answer).encode()
        always(self.fake, path, whole(200, "application/json", body))


class Cause(NamedTuple):
    """What makes the doctor say `words`; `advice` begins what it says to do."""

    check: str
    level: str
    words: str
    add: Callable[[Site], object]
    advice: str = ""


def having(**environ: str) -> Callable[[Site], object]:
    return lambda site: site.environ.update(environ)


def elsewhere(site: Site) -> None:
    (port,) = free_ports(1)
    site.environ["OLLAMA_BASE_URL"] = f"http://127.0.0.1:{port}"


def silent(site: Site) -> None:
    site.patch.setattr(ollama, "TIMEOUT_S", 0.2)
    always(site.fake, "/api/version", never_answers)


def down(site: Site) -> None:
    elsewhere(site)
    (port,) = free_ports(1)
    site.environ["PORT"] = str(port)


def tunnel_down(site: Site) -> None:
    elsewhere(site)
    site.environ["OLLAMA_HEADERS"] = TOKEN


def loaded(**model: int) -> Callable[[Site], object]:
    models = [{"name": MODEL, "size": 1000, **model}]
    return lambda site: site.ollama_says("/api/ps", {"models": models})


def listener(site: Site) -> int:
    """Return the port of something that listens, and is no gateway."""
    server = site.open.enter_context(socket.create_server(("127.0.0.1", 0)))
    port: int = server.getsockname()[1]
    return port


def certificate(days: int, age_days: int = 30) -> Callable[[Site], object]:
    def add(site: Site) -> None:
        make_certificate(site.folder, days, age_days=age_days)
        site.environ["SSL_CERTFILE"] = str(site.folder / "cert.pem")

    return add


def untrusted_front(site: Site) -> None:
    site.patch.setattr(access, "HTTPS_PORT", listener(site))


def clock(site: Site, ahead_s: int) -> None:
    """Let this machine's clock differ from Ollama's."""
    now_s = OLLAMAS_TIME.timestamp() + ahead_s
    site.patch.setattr(ollama, "time", SimpleNamespace(time=lambda: now_s))


def clock_that_nobody_sets(site: Site) -> None:
    timedatectl = site.folder / "timedatectl"
    timedatectl.write_text("#!/bin/sh\necho no\n", "utf-8")
    timedatectl.chmod(0o700)
    site.patch.setenv("PATH", f"{site.folder}:/usr/bin:/bin")


CAUSES = [
    Cause("settings", "problem", "PORT is invalid", having(PORT="many")),
    Cause(
        *("settings", "problem", "OLLAMA_CA_FILE"),
        having(OLLAMA_CA_FILE="/none", OLLAMA_BASE_URL="https://x"),
    ),
    Cause("settings", "problem", "JWT_PUBLIC_KEY_FILE", having(JWT_PUBLIC_KEY_FILE="/none")),
    Cause("settings", "problem", "MAX_MEMORY_BYTES is invalid", having(MAX_MEMORY_BYTES="1")),
    Cause("settings", "problem", "LOG_FILE cannot be opened", having(LOG_FILE="/none/log")),
    Cause("ollama", "problem", "no Ollama answers at", down, "systemctl status ollama"),
    Cause("ollama", "problem", "no answer within 0.2 seconds", silent, "systemctl status ollama"),
    Cause("ollama", "warning", "has another Ollama, or runs the built-in model", elsewhere),
    Cause("ollama", "problem", "no Ollama answers at", tunnel_down, "it is behind a tunnel"),
    Cause(
        *("ollama", "warning", "but is old (0.24.0)"),
        lambda site: site.ollama_says("/api/version", {"version": "0.24.0"}),
    ),
    Cause("tunnel", "ok", "Ollama answers through it, in ", having(OLLAMA_HEADERS=TOKEN)),
    Cause(
        *("models", "problem", "cannot be listed"),
        lambda site: always(site.fake, "/api/tags", error(500, "boom")),
    ),
    Cause(
        *("models", "problem", "none is installed"),
        lambda site: site.ollama_says("/api/tags", {"models": []}),
        "ollama pull",
    ),
    Cause(
        *("models", "problem", "the default none:70b is not installed"),
        having(DEFAULT_MODEL="none:70b"),
        "ollama pull none:70b",
    ),
    Cause("gpu", "warning", "entirely on the CPU", loaded()),
    Cause("gpu", "warning", "25% of it on the GPU", loaded(size_vram=250)),
    Cause(
        *("gpu", "warning", "long conversations are refused"),
        loaded(size_vram=1000, context_length=4096),
    ),
    Cause("clock", "warning", "differs from Ollama's by -3600 s", lambda site: clock(site, -3600)),
    Cause("clock", "warning", "this machine's clock is not synchronized", clock_that_nobody_sets),
    Cause(
        *("ports", "warning", "nothing listens on PORT"),
        lambda site: site.environ.update(PORT=str(free_ports(1)[0])),
    ),
    Cause(
        *("ports", "problem", "another program uses WEB_PORT"),
        lambda site: site.environ.update(WEB_PORT=str(listener(site))),
    ),
    Cause("keys", "problem", "API_KEYS", having(API_KEYS="no JSON")),
    Cause(
        *("access", "problem", "without a key"),
        having(ANONYMOUS_CLIENTS="0.0.0.0/0,::/0"),
        "name your own networks",
    ),
    Cause("access", "problem", "TRUSTED_PROXIES contains", having(TRUSTED_PROXIES="0.0.0.0/0")),
    Cause("access", "warning", "there is no key", having(API_KEYS_FILE=""), "ollama-web-api keys"),
    Cause(
        *("access", "warning", "Ollama also listens on 127.0.0.1"),
        lambda site: site.patch.setattr(access, "_own_address", lambda: "127.0.0.1"),
    ),
    Cause(
        *("front", "warning", "all its clients are strangers"),
        untrusted_front,
        "if it is the front of this gateway, TRUSTED_PROXIES=127.0.0.1/32",
    ),
    Cause("certificate", "problem", "SSL_CERTFILE cannot be read", having(SSL_CERTFILE="/none")),
    Cause("certificate", "problem", "SSL_CERTFILE has expired", certificate(-1)),
    Cause("certificate", "problem", "SSL_CERTFILE is not valid before", certificate(90, -1)),
    Cause("certificate", "problem", "SSL_CERTFILE or SSL_KEYFILE is invalid", certificate(90)),
    Cause("certificate", "warning", "SSL_CERTFILE expires in 7 days", certificate(7)),
    Cause(
        *("files", "warning", "may open 1024 files"),
        lambda site: site.patch.setattr(resource, "getrlimit", lambda _: (1024, 1024)),
    ),
    Cause("time-outs", "warning", "QUEUE_TIMEOUT_S (300)", having(QUEUE_TIMEOUT_S="300")),
    Cause("time-outs", "warning", "REQUEST_TIMEOUT_S (400)", having(REQUEST_TIMEOUT_S="400")),
    Cause("time-outs", "warning", "SHUTDOWN_GRACE_S (60)", having(SHUTDOWN_GRACE_S="60")),
    Cause(
        *("store", "problem", "RATE_LIMIT_STORAGE is down"),
        having(RATE_LIMIT_STORAGE="redis://127.0.0.1:1"),
    ),
]


@pytest.fixture
async def site(
    serve: Serve, fake: FakeOllama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    keys = tmp_path / "keys.json"
    create(keys, "me")
    environ = {
        "OLLAMA_BASE_URL": fake.url,
        "DEFAULT_MODEL": MODEL,
        "PORT": str(httpx.URL(await serve()).port),
        "WEB_PORT": "0",
        "API_KEYS_FILE": str(keys),
    }
    # This machine's own are not to be found.
    monkeypatch.setattr(access, "HTTPS_PORT", free_ports(1)[0])
    monkeypatch.setattr(access, "_own_address", lambda: "")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (65_536, 65_536))
    monkeypatch.setenv("PATH", str(tmp_path))
    site = Site(environ, fake, tmp_path, monkeypatch)
    site.ollama_says("/api/version", {"version": "0.33.1"})
    clock(site, 0)
    with site.open:
        yield site


async def findings(site: Site, capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    """Return what the doctor finds, whose exit status agrees with it."""
    for name, value in site.environ.items():
        site.patch.setenv(name, value)
    capsys.readouterr()
    status = await asyncio.to_thread(main, ["--json"])
    found: list[dict[str, str]] = json.loads(capsys.readouterr().out)["findings"]
    assert status == any(finding["level"] == "problem" for finding in found)
    return found


async def test_without_a_cause_there_is_nothing_to_find(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    found = await findings(site, capsys)
    assert [finding["text"] for finding in found if finding["level"] != "ok"] == []


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.words)
async def test_each_cause_is_found(
    site: Site, capsys: pytest.CaptureFixture[str], cause: Cause
) -> None:
    cause.add(site)
    found = [
        finding
        for finding in await findings(site, capsys)
        if (finding["check"], finding["level"]) == (cause.check, cause.level)
        and cause.words in finding["text"]
    ]
    assert len(found) == 1
    assert found[0].get("advice", "").startswith(cause.advice)
    assert found[0].get("advice") or cause.level == "ok"


def test_a_failure_without_a_text_has_its_name() -> None:
    found = ollama._unreachable(Settings(port=0), httpx.ReadError(""))  # 0: no server is asked
    assert found.text.endswith(": ReadError")


def test_no_finding_is_without_a_cause() -> None:
    in_code = Counter(_calls(ROOT / "core/doctor"))
    assert len(in_code) > 10
    assert in_code <= Counter((cause.check, cause.level) for cause in CAUSES)


def _calls(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the check and the level of every finding that is not `ok`."""
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(ast.Name("problem" | "warning" as level), [ast.Constant(check), *_]):
                    yield str(check), level
