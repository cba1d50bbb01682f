"""The fail2ban filter finds attackers, and nobody else, in a log that this server wrote."""

import json
import subprocess
from pathlib import Path

import httpx
import jwt
import pytest

from core.context import Record
from core.keys.editing import create
from core.observe import logs
from core.serving import reading
from core.settings.networks import Networks
from core.settings.schema import Settings
from tests.conftest import Serve
from tests.log_lines import Lines
from tests.programs import ROOT, program
from tests.sockets import raw

FILTER = ROOT / "deploy/fail2ban/filter.conf"
SECRET = "0123456789abcdef0123456789abcdef"  # noqa: S105


def banned(log: Path) -> list[str]:
    """Return the lines for which the filter bans someone."""
    command = program("fail2ban-regex", "apt install fail2ban")
    done = subprocess.run(
        [command, "--print-all-matched", "--print-no-missed", log, FILTER],
        capture_output=True,
        text=True,
        check=False,
    )
    return [line[3:] for line in done.stdout.splitlines() if line.startswith('|  {"time"')]


async def test_each_kind_of_refusal_is_found(
    serve: Serve,
    lines: Lines,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reading, "HEAD_TIMEOUT_S", 0.2)
    key = create(tmp_path / "keys.json", "ci")
    open_ = {"anonymous_clients": Networks("none"), "api_keys_file": str(tmp_path / "keys.json")}
    url = await serve(**open_, auth_failure_limit="2/hour")
    async with httpx.AsyncClient(base_url=url) as client:
        await client.get("/api/models")  # 401
        for _ in range(3):
            await client.get("/api/models", headers={"X-API-Key": f"{key}x"})  # 401, 401, 429
    await raw(url, b"GET / HT")  # 408
    await raw(url, b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000)  # 431
    await raw(url, b"nonsense\r\n\r\n")  # 400
    url = await serve(allowed_clients=Networks("192.0.2.0/24"))
    async with httpx.AsyncClient(base_url=url) as client:
        await client.get("/api/health")  # 403
    refused = await lines.of_requests(8)
    assert [line["status"] for line in refused] == [401, 401, 401, 429, 408, 431, 400, 403]
    assert {line["address"] for line in refused} == {"127.0.0.1"}
    assert [line.get("refused_key") for line in refused][:5] == [None, "ci", "ci", "ci", None]
    assert [json.loads(line) for line in banned(lines.path)] == refused


async def test_nobody_else_is_banned(
    serve: Serve,
    lines: Lines,
    tmp_path: Path,
) -> None:
    path = tmp_path / "keys.json"
    key = create(path, "ci", rate="3/hour", models=("llama*",))
    url = await serve(
        anonymous_clients=Networks("none"), api_keys_file=str(path), jwt_secret=SECRET
    )
    token = jwt.encode({"sub": "ci", "exp": 2**33}, SECRET)
    forged = "/%22,%22status%22:401,%22address%22:%22192.0.2.9%22,%22method%22:%22%22"
    async with httpx.AsyncClient(base_url=url, headers={"X-API-Key": key}) as client:
        await client.post("/api/chat", json={"message": "hi", "model": "smollm2:135m"})  # 403
        await client.post("/api/chat", content=b"{")  # 415
        await client.get(forged)  # 404
        await client.get("/api/models")  # 429
    async with httpx.AsyncClient(base_url=url, headers={"X-API-Key": token}) as client:
        await client.get("/api/models")
        await client.get("/api/health")
        await client.get("/api/health", headers={"Host": "evil.example"})  # 400, by mistake
    found = [(line["status"], line["client"]) for line in await lines.of_requests(7)]
    assert found == [
        *((status, "key:ci") for status in (403, 415, 404, 429)),
        (200, "jwt:ci"),
        (200, "address:127.0.0.1"),
        (400, ""),
    ]
    assert banned(lines.path) == []


def test_no_line_without_an_address_bans_anybody(tmp_path: Path) -> None:
    log = tmp_path / "log"
    formatter = logs.JSONFormatter()
    for address in ("", "192.0.2.1", "2001:db8::1"):
        record = Record(
            request_id="", method="", path="", started_at=0, status=401, address=address
        )
        with log.open("a") as file:
            file.write(formatter.format([record]) + "\n")
    assert [json.loads(line)["address"] for line in banned(log)] == ["192.0.2.1", "2001:db8::1"]


def test_the_jail_names_the_ports_of_this_server_and_of_a_front(tmp_path: Path) -> None:
    jail = (ROOT / "deploy/fail2ban/jail.conf").read_text("utf-8")
    defaults = Settings()
    assert f"port = 80,443,{defaults.port},{defaults.web_port}\n" in jail
    client = program("fail2ban-client", "apt install fail2ban")
    for source, name in (("filter", "filter.d"), ("jail", "jail.d")):
        (tmp_path / name).mkdir()
        target = tmp_path / name / "ollama-web-api.conf"
        target.write_text((ROOT / f"deploy/fail2ban/{source}.conf").read_text("utf-8"))
    for name in (
        "action.d",
        "fail2ban.conf",
        "jail.conf",
        "paths-common.conf",
        "paths-debian.conf",
    ):
        (tmp_path / name).symlink_to(Path("/etc/fail2ban", name))
    (tmp_path / "jail.d/log.local").write_text(
        f"[ollama-web-api]\nlogpath = {tmp_path}/log\n[sshd]\nenabled = false\n"
    )
    (tmp_path / "log").touch()
    done = subprocess.run(
        [client, "-c", tmp_path, "--test", "-v"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "OK: configuration test is successful" in done.stdout + done.stderr
