"""Three Ollama machines behind HAProxy, with the configuration that operators copy."""

import asyncio
import json
import os
import pwd
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tests.conftest import Serve
from tests.fake_ollama import Connection, FakeOllama, Lockstep, Request, never_answers, tokens
from tests.programs import ROOT, free_ports, program, started

SMALL = {"message": "안녕", "model": "smollm2:135m"}
LARGE = {"message": "안녕", "model": "Llama3.1:70B"}
MODELS = ("llama3.1:70b", "qwen2.5:72b"), ("smollm2:135m", "qwen3:4b"), ("smollm2:135m",)
WORDS = [f"말{number} " for number in range(20)]
ONE_THREAD = {"log stdout": "nbthread 1\n    log stdout"}
"""Each of HAProxy's threads knows a moment later what another has just counted."""


class Pool:
    """The machines gpu1 (the group `large`) to gpu3, and HAProxy's URL."""

    def __init__(self, machines: list[FakeOllama], url: str, folder: Path, pid: int) -> None:
        self.machines = machines
        self.url = url
        self.folder = folder
        self.pid = pid
        self.gpu1, self.gpu2, self.gpu3 = machines

    def asked(self) -> list[int]:
        return [len(machine.asked()) for machine in self.machines]


def configure(folder: Path, port: int, machines: list[FakeOllama], limits: dict[str, str]) -> Path:
    """Write the operator's configuration with these addresses and `limits`."""
    haproxy = program("haproxy", "apt install haproxy")
    text = (ROOT / "deploy/haproxy.cfg").read_text("utf-8")
    text = text.replace("127.0.0.1:11435", f"127.0.0.1:{port}")
    text = text.replace("/etc/haproxy/", f"{ROOT}/deploy/haproxy/")
    text = text.replace("/run/haproxy/", f"{folder}/")
    if os.geteuid():  # only root may become another user
        text = re.sub(r"(?m)^ +(user|group|chroot) .*\n", "", text)
    for number, machine in enumerate(machines, 1):
        address = httpx.URL(machine.url).netloc.decode()
        text, count = re.subn(rf"(server gpu{number}) \S+", rf"\1 {address}", text)
        assert count == 1
    for old, new in {"inter 2s": "inter 200ms", "check 2s": "check 1s", **limits}.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / "haproxy.cfg"
    path.write_text(text, "utf-8")
    checked = subprocess.run([haproxy, "-c", "-f", path], check=True, capture_output=True)
    assert b"WARNING" not in checked.stdout + checked.stderr
    return path


@pytest.fixture
def limits() -> dict[str, str]:
    """The limits that a test may reduce."""
    return {}


@pytest.fixture
async def pool(tmp_path: Path, limits: dict[str, str]) -> AsyncIterator[Pool]:
    async with AsyncExitStack() as stack:
        machines = [await stack.enter_async_context(FakeOllama(models)) for models in MODELS]
        (port,) = free_ports(1)
        path = configure(tmp_path, port, machines, limits)
        command = [program("haproxy", "apt install haproxy"), "-f", str(path)]
        process = stack.enter_context(started(command, {}))
        pool = Pool(machines, f"http://127.0.0.1:{port}", tmp_path, process.pid)
        async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(20):
            while True:
                try:
                    if (await client.get(f"{pool.url}/api/tags")).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)
        yield pool


@pytest.fixture
async def api(serve: Serve, pool: Pool) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the bundle in front of the pool, which to the bundle is just an Ollama."""
    url = await serve(ollama_base_url=pool.url, rate_limit="off", max_concurrent=100)
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=url, trust_env=False, timeout=60, limits=limits
    ) as client:
        yield client


async def test_a_request_goes_to_a_machine_that_has_its_model(
    pool: Pool, api: httpx.AsyncClient
) -> None:
    for body in (LARGE, {**LARGE, "system": "Be brief."}, {**LARGE, "message": '"model":"x"'}):
        assert (await api.post("/api/chat", json=body)).status_code == 200
    assert pool.asked() == [3, 0, 0]
    for _ in range(4):
        assert (await api.post("/api/chat", json=SMALL)).status_code == 200
    assert pool.asked()[0] == 3
    answer = await api.post("/api/chat", json={**SMALL, "model": "none:1b"})
    assert answer.status_code == 404
    assert "llama3.1:70b, qwen2.5:72b" in answer.json()["error"]


async def test_a_body_that_haproxy_cannot_hold_goes_there_too(
    pool: Pool, api: httpx.AsyncClient
) -> None:
    for gpu in (pool.gpu1, pool.gpu2, pool.gpu3):
        gpu.capabilities = ["completion", "vision"]
    body = {**LARGE, "images": ["A" * (4 * 2**20)], "system": "x" * 100_000}
    assert (await api.post("/api/chat", json=body)).status_code == 200
    assert pool.asked() == [1, 0, 0]
    assert pool.gpu1.asked()[0].json["messages"][-1]["images"] == body["images"]


async def test_the_models_of_all_machines_are_listed_once(
    pool: Pool, api: httpx.AsyncClient
) -> None:
    async def models() -> list[str]:
        result: list[str] = (await api.get("/api/models")).json()["models"]
        return result

    large = ["llama3.1:70b", "qwen2.5:72b"]
    assert (await models())[:3] == [*large, "smollm2:135m"]
    await pool.gpu1.stop()
    async with asyncio.timeout(10):
        while (await models())[:1] != ["smollm2:135m"]:
            await asyncio.sleep(0.05)
    for machine in (pool.gpu2, pool.gpu3):
        await machine.stop()
    async with asyncio.timeout(10):
        while (answer := await api.get("/api/models")).status_code == 200:
            await asyncio.sleep(0.05)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert (await api.get("/api/health")).status_code == 200


@pytest.mark.parametrize("limits", [ONE_THREAD])
async def test_the_machine_with_the_fewest_requests_is_next(
    pool: Pool, api: httpx.AsyncClient
) -> None:
    async def together(connection: Connection, request: Request) -> None:
        while sum(pool.asked()) < 8:
            await asyncio.sleep(0.002)
        await tokens(WORDS)(connection, request)

    for machine in pool.machines:
        machine.default = together
    await asyncio.gather(*(api.post("/api/chat", json=SMALL) for _ in range(8)))
    assert pool.asked() == [0, 4, 4]


async def dies_within(connection: Connection, request: Request) -> None:
    """Send some words, and no more until the machine is stopped."""
    lockstep = Lockstep(WORDS)
    for _ in range(4):
        lockstep.next()
    await lockstep(connection, request)


async def test_a_machine_that_dies_takes_with_it_only_what_it_had_begun(
    pool: Pool, api: httpx.AsyncClient
) -> None:
    pool.gpu2.default, pool.gpu3.default = dies_within, tokens(WORDS, pace_s=0.02)
    streams = [asyncio.create_task(api.post("/api/chat/stream", json=SMALL)) for _ in range(12)]
    plain = [asyncio.create_task(api.post("/api/chat", json=SMALL)) for _ in range(12)]
    await pool.gpu2.wait_for(4)
    await asyncio.sleep(0.1)
    begun = len(pool.gpu2.asked())
    await pool.gpu2.stop()

    whole = [{"response": word, "done": False} for word in WORDS]
    cut = 0
    for answer in await asyncio.gather(*streams, *plain):
        *lines, last = [json.loads(line) for line in answer.text.rstrip().split("\n")]
        if "error" in last:
            assert last["success"] is False
            assert last["error"].startswith("Ollama connection error")
            assert answer.status_code == (200 if lines else 500)
            assert lines == whole[: len(lines)]
            cut += 1
        else:
            assert lines == whole or last["response"] == "".join(WORDS)
    assert cut == begun
    assert len(pool.gpu3.asked()) == 24 - begun, "nothing is lost, and nothing repeated"

    pool.gpu2.default = tokens(WORDS)
    await pool.gpu2.start()
    async with asyncio.timeout(10):
        while len(pool.gpu2.asked()) == begun:
            await asyncio.gather(*(api.post("/api/chat", json=SMALL) for _ in range(4)))


async def test_a_machine_that_hangs_gets_no_more_requests(
    pool: Pool, api: httpx.AsyncClient
) -> None:
    pool.gpu2.reply(*[never_answers] * 100, path="/api/version")
    await pool.gpu2.wait_for(len(pool.gpu2.asked("/api/version")) + 3, "/api/version")
    for _ in range(4):
        assert (await api.post("/api/chat", json=SMALL)).status_code == 200
    assert pool.asked() == [0, 0, 4]


async def test_a_group_that_is_down_is_not_called_busy(pool: Pool, api: httpx.AsyncClient) -> None:
    await pool.gpu1.stop()
    async with asyncio.timeout(10):
        while True:
            answer = await api.post("/api/chat", json=LARGE)
            assert not answer.json()["error"].startswith("Ollama is busy")
            if "down" in answer.json()["error"]:
                break
            await asyncio.sleep(0.05)
    assert answer.headers["retry-after"] == "5"
    assert answer.json()["error"].startswith(
        "Ollama is not available: every Ollama machine of this model is down"
    )
    assert (await api.post("/api/chat", json=SMALL)).status_code == 200


async def test_the_operator_can_take_a_machine_out(pool: Pool, api: httpx.AsyncClient) -> None:
    reader, writer = await asyncio.open_unix_connection(str(pool.folder / "admin.sock"))
    writer.write(b"disable server small/gpu2\n")
    await reader.read()
    writer.close()
    for _ in range(4):
        assert (await api.post("/api/chat", json=SMALL)).status_code == 200
    assert pool.asked() == [0, 0, 4]


async def test_a_client_that_goes_away_stops_its_machine(
    pool: Pool, api: httpx.AsyncClient
) -> None:
    pool.gpu1.default = never_answers
    asking = asyncio.create_task(api.post("/api/chat", json=LARGE))
    request = await pool.gpu1.wait_for(1)
    asking.cancel()
    async with asyncio.timeout(10):
        await request.disconnected.wait()


@pytest.mark.parametrize(
    "limits", [{"maxconn 4": "maxconn 1", "queue ge 64": "queue ge 2", **ONE_THREAD}]
)
async def test_a_full_queue_says_when_to_come_again(pool: Pool, api: httpx.AsyncClient) -> None:
    let_go = asyncio.Event()

    async def held(connection: Connection, request: Request) -> None:
        await let_go.wait()
        await tokens(WORDS)(connection, request)

    pool.gpu1.default = held
    first = asyncio.create_task(api.post("/api/chat", json=LARGE))
    await pool.gpu1.wait_for(1)
    asking = [asyncio.create_task(api.post("/api/chat", json=LARGE)) for _ in range(6)]
    async with asyncio.timeout(30):
        while sum(task.done() for task in asking) < 4:
            await asyncio.sleep(0.01)
    let_go.set()
    others = await asyncio.gather(*asking)
    refused = [answer for answer in others if answer.status_code != 200]
    assert len(others) - len(refused) == 2
    for answer in refused:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert answer.json()["error"].startswith("Ollama is busy")
    assert (await first).status_code == 200
    assert pool.asked() == [3, 0, 0]
    assert (await api.post("/api/chat", json=SMALL)).status_code == 200, "the other group is free"


def rights(pid: int) -> tuple[set[str], set[str], Path]:
    """Return a process's users and groups, and its root directory."""
    folder = Path(f"/proc/{pid}")
    status = (folder / "status").read_text("ascii")
    users, groups = (re.findall(rf"(?m)^{name}:(.*)$", status)[0] for name in ("Uid", "Gid"))
    return set(users.split()), set(groups.split()), (folder / "root").readlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
async def test_haproxy_is_not_root_and_does_not_see_the_disk(pool: Pool) -> None:
    user = pwd.getpwnam("haproxy")
    empty = Path("/var/lib/haproxy")
    assert rights(pool.pid) == ({str(user.pw_uid)}, {str(user.pw_gid)}, empty)
