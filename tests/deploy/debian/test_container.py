"""The image of the Containerfile, built from a bare Debian, and run as compose.yaml says."""

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from core.app import create_app
from core.settings.schema import Settings
from handlers import asgi
from tests.deploy.debian.conftest import Debian
from tests.fake_ollama import FakeOllama
from tests.gateway import shut_down
from tests.network import changing
from tests.programs import ROOT, free_ports, program

pytestmark = pytest.mark.timeout(900)  # the first test waits for the image to be made

IMAGE = "localhost/ollama-web-api"
BASE = "localhost/debian"
KEYS = "/var/lib/ollama-web-api"


class Podman:
    """Podman and Buildah with their own store."""

    def __init__(self, folder: Path) -> None:
        self._store = ["--root", f"{folder}/store", "--runroot", f"{folder}/run"]
        self._podman = program("podman", "apt install podman")
        self._buildah = program("buildah", "apt install buildah")
        program("runc", "apt install runc")  # crun wants a cgroup of systemd

        self._options = [
            *(*self._store, "--network-config-dir", f"{folder}/networks"),
            *("--cgroup-manager", "cgroupfs", "--runtime", "runc"),
        ]

    def __call__(self, *arguments: str | Path) -> str:
        return self._run(self._podman, *self._options, *arguments)

    def build(self, wheels: Path, context: Path) -> None:
        """Build the image, with Debian packages from this machine's sources.

        The sources come from `context`, a copy as Git makes it for a user whose umask is 077.
        """
        names = [ROOT / name for name in ("core", "deploy", "handlers", "requirements.txt")]
        subprocess.run(["cp", "-r", *names, context], check=True, umask=0o077)
        mounts = {
            f"{wheels}": "/wheels",
            f"{wheels}/pip.conf": "/etc/pip.conf",
            "/etc/apt": "/etc/apt",
            "/usr/share/keyrings": "/usr/share/keyrings",
        }
        self._run(
            *(self._buildah, *self._store, "bud", "--format", "docker", "--tag", IMAGE),
            *("--isolation", "chroot", "--network", "host", "--build-arg", f"BASE={BASE}"),
            *(f"--volume={source}:{target}:ro" for source, target in mounts.items()),
            *("--file", context / "deploy/Containerfile", context),
        )

    @staticmethod
    def needs_network() -> None:
        """Skip the test where containers could not find each other."""
        if not all(Path("/usr/lib/podman", part).exists() for part in ("netavark", "aardvark-dns")):
            pytest.skip("apt install netavark aardvark-dns, by which containers find each other")

    def compose(self, folder: Path, *arguments: str | Path) -> str:
        """Run podman-compose on compose.yaml, changed by `folder` for machines without a GPU."""
        podman = folder / "podman"
        command = " ".join([self._podman, *self._options])
        podman.write_text(f'#!/bin/sh\nexec {command} "$@"\n', "utf-8")
        podman.chmod(0o700)
        with changing():
            return self._run(
                *(sys.executable, "-m", "podman_compose", "--podman-path", podman),
                *("--file", ROOT / "deploy/compose.yaml", "--file", folder / "test.yaml"),
                *arguments,
            )

    @staticmethod
    def _run(*command: str | Path) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout.strip()


@pytest.fixture(scope="module")
def podman(
    debian: Debian, wheels: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Podman]:
    with tempfile.TemporaryDirectory(prefix="podman") as folder:
        podman = Podman(Path(folder))
        podman("import", debian.bare, BASE)
        podman.build(wheels, tmp_path_factory.mktemp("context"))
        yield podman


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    """The gateway's part of compose.yaml."""
    text = (ROOT / "deploy/compose.yaml").read_text("utf-8")
    service: dict[str, Any] = yaml.safe_load(text)["services"]["gateway"]
    return service


@contextmanager
def running(podman: Podman, service: dict[str, Any], ollama: str) -> Iterator[tuple[str, str]]:
    """Run the image as compose.yaml says, but on loopback; yield the container and its URL."""
    (port,) = free_ports(1)
    settings = {
        **service["environment"],
        "OLLAMA_BASE_URL": ollama,
        "DEFAULT_MODEL": "smollm2:135m",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "WEB_PORT": "0",
    }
    assert service["read_only"]
    container = podman(
        *("run", "--detach", "--network", "host", "--read-only", "--user", service["user"]),
        *(f"--cap-drop={capability}" for capability in service["cap_drop"]),
        *(f"--security-opt={option}" for option in service["security_opt"]),
        *(f"--env={name}={value}" for name, value in settings.items()),
        # What a machine lets root have may be less than what runc would give.
        *("--ulimit=nofile=1024:1024", "--ulimit=nproc=512:512"),
        IMAGE,
    )
    try:
        yield container, f"http://127.0.0.1:{port}"
    finally:
        podman("rm", "--force", "--volumes", container)


def status_of(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text("utf-8")


async def healthy(url: str) -> httpx.Response:
    transport = httpx.AsyncHTTPTransport(retries=8)  # half a second, one, two ...
    async with httpx.AsyncClient(transport=transport, timeout=20) as client:
        return await client.get(f"{url}/api/health")


async def test_the_container_answers_with_few_rights(
    podman: Podman, service: dict[str, Any], fake: FakeOllama
) -> None:
    with running(podman, service, fake.url) as (container, url):
        assert (await healthy(url)).json()["ollama_status"] == "connected"
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as client:
            answer = await client.post("/api/chat", json={"message": "안녕하세요!"})
            assert answer.status_code == 200
            assert podman("healthcheck", "run", container) == ""
            key = podman(
                *("exec", container, ".venv/bin/python", "-m", "core.keys"),
                *("create", "--name", "me"),
            ).splitlines()[-1]
            stranger = {"X-Forwarded-For": "192.0.2.1"}
            refused = await client.get("/api/models", headers=stranger)
            assert refused.status_code == 401
            answer = await client.get("/api/models", headers={**stranger, "X-API-Key": key})
            assert answer.status_code == 200
        usage = podman("exec", container, ".venv/bin/python", "-m", "core.usage")
        assert usage.startswith("key ")
        state = json.loads(podman("inspect", container))[0]
        assert state["HostConfig"]["ReadonlyRootfs"]
        assert state["EffectiveCaps"] in (None, [])
        status = status_of(state["State"]["Pid"])
        assert "Uid:\t65534\t65534" in status
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status


async def test_it_ends_when_told_to(
    podman: Podman, service: dict[str, Any], fake: FakeOllama
) -> None:
    with running(podman, service, fake.url) as (container, url):
        await healthy(url)
        podman("stop", "--time", "20", container)
        state = json.loads(podman("inspect", container))[0]["State"]
        assert state["ExitCode"] in {0, 128 + 15}, "it was killed"


def test_the_image_is_small_and_has_no_shell(podman: Podman) -> None:
    (image,) = json.loads(podman("inspect", IMAGE))
    assert image["Size"] < 150_000_000
    listing = podman(
        "run",
        "--rm",
        "--ulimit=nofile=1024:1024",
        "--ulimit=nproc=512:512",
        "--network=none",
        IMAGE,
        ".venv/bin/python",
        "-c",
        "import os; print(*os.listdir('/usr/bin'))",
    ).split()
    assert not {"sh", "bash", "dash", "apt", "dpkg", "perl"} & set(listing)
    assert image["Config"]["User"] == "65534:65534"
    assert image["Healthcheck"]


OLLAMA = """
from http.server import BaseHTTPRequestHandler, HTTPServer

class Ollama(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"version":"0.33.1"}')

HTTPServer(("", 11434), Ollama).serve_forever()
"""
"""What the gateway asks for its health."""


async def test_compose_starts_both_and_they_find_each_other(podman: Podman, tmp_path: Path) -> None:
    podman.needs_network()
    api, page = free_ports(2)
    # What a machine lets root have may be less than what runc would give.
    limits = "ulimits: {nofile: {soft: 1024, hard: 1024}, nproc: {soft: 512, hard: 512}}"
    ports = f"!override ['127.0.0.1:{api}:5000', '127.0.0.1:{page}:8080']"
    command = json.dumps([".venv/bin/python", "-c", OLLAMA])
    (tmp_path / "test.yaml").write_text(
        f"""
services:
  gateway: {{image: {IMAGE}, ports: {ports}, {limits}}}
  ollama: {{image: {IMAGE}, deploy: !reset null, command: {command}, {limits}}}
""",
        "utf-8",
    )
    podman.compose(tmp_path, "up", "--no-build", "--detach")
    try:
        url = f"http://127.0.0.1:{api}"
        async with asyncio.timeout(60):
            while (await healthy(url)).json()["ollama_status"] != "connected":
                await asyncio.sleep(0.2)  # it is started after the gateway
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            assert (await client.get(f"{url}/api/models")).status_code == 401
            assert (await client.get(f"http://127.0.0.1:{page}/")).status_code == 200
        keys = (".venv/bin/python", "-m", "core.keys", "create", "--name", "me")
        key = podman.compose(tmp_path, "exec", "-T", "gateway", *keys).splitlines()[-1]
        async with httpx.AsyncClient(trust_env=False, headers={"X-API-Key": key}) as client:
            assert (await client.get(f"{url}/api/stats")).status_code == 200
        names = podman("ps", "--format", "{{.Names}}").split()
        assert names == ["ollama-web-api_gateway_1", "ollama-web-api_ollama_1"]
        assert podman("healthcheck", "run", names[0]) == ""
        state = json.loads(podman("inspect", names[0]))[0]
        assert state["HostConfig"]["ReadonlyRootfs"]
        assert state["Config"]["User"] == "65534:65534"
        assert "NoNewPrivs:\t1" in status_of(state["State"]["Pid"])
    finally:
        podman.compose(tmp_path, "down", "--volumes")


async def test_behind_a_front_on_the_host_no_stranger_passes_for_the_host(
    service: dict[str, Any], fake: FakeOllama
) -> None:
    text = (ROOT / "deploy/compose.yaml").read_text("utf-8")
    _, _, anonymous = text.partition("# ANONYMOUS_CLIENTS: ")
    network = yaml.safe_load(text)["networks"]["ollama"]["ipam"]["config"][0]
    own = {"OLLAMA_BASE_URL": fake.url, "ANONYMOUS_CLIENTS": anonymous.partition("\n")[0]}
    app = create_app(asgi.routes, Settings.from_env({**service["environment"], **own}))
    transport = httpx.ASGITransport(app, client=(network["gateway"], 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/api/models")).status_code == 200
        headers = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
        refused = await client.get("/api/models", headers=headers)
        assert refused.status_code == 401
        assert "203.0.113.9" in refused.text
    await shut_down(app)


def test_compose_asks_as_the_image_does_whether_it_is_healthy(service: dict[str, Any]) -> None:
    containerfile = (ROOT / "deploy/Containerfile").read_text("utf-8")
    check = containerfile.partition("HEALTHCHECK ")[2].partition("\n")[0]
    options, _, command = check.partition(" CMD ")
    healthcheck = service["healthcheck"]
    assert healthcheck["test"] == ["CMD", *json.loads(command)]
    for name in ("interval", "timeout", "start_period"):
        assert f"--{name.replace('_', '-')}={healthcheck[name]}" in options.split()


def test_compose_gives_ollama_the_gpu_and_publishes_only_the_gateway() -> None:
    services = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text("utf-8"))["services"]
    (device,) = services["ollama"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert "ports" not in services["ollama"]
    assert all(port.startswith("127.0.0.1:") for port in services["gateway"]["ports"])
    assert services["gateway"]["volumes"] == [f"keys:{KEYS}"]


def test_ci_may_run_containers_and_boot_machines() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))
    assert "--privileged" in workflow["jobs"]["ci"]["container"]["options"].split()
