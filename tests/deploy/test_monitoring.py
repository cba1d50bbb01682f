"""The files for Prometheus, Grafana and logrotate, with those programs and a running gateway."""

import asyncio
import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Serve
from tests.fake_ollama import FakeOllama, error
from tests.processes import fake_ollama, running
from tests.programs import ROOT, free_ports, program, started

DEPLOY = ROOT / "deploy"
CHAT = {"message": "안녕", "model": "smollm2:135m"}
NAME = re.compile(r"\bollama_web_api_\w+")


def dashboard() -> dict[str, Any]:
    text = (DEPLOY / "grafana/ollama-web-api.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def expressions() -> list[str]:
    """Return the queries of the dashboard and the alerts, as Grafana sends them to Prometheus."""
    panels = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    rules = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text("utf-8"))
    alerts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    variables = {"$instance": ".*", "$__rate_interval": "1m"}
    texts = [*panels, *alerts]
    for name, value in variables.items():
        texts = [text.replace(name, value) for text in texts]
    assert "$" not in "".join(texts)
    return texts


@pytest.fixture
async def busy(serve: Serve, fake: FakeOllama) -> str:
    """The URL of a gateway where everything that is counted has happened."""
    url: str = await serve(rate_limit="3/minute")
    fake.reply(error(500, "boom"))
    paths = ("/api/chat", "/api/chat", "/api/chat/stream", "/api/chat")
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        statuses = [(await client.post(path, json=CHAT)).status_code for path in paths]
    assert statuses == [500, 200, 200, 429]
    return url


def family(sample: str) -> str:
    """Return the name of the histogram that `sample` belongs to, or its own."""
    return re.sub(r"_(bucket|sum|count)$", "", sample)


async def test_every_name_in_the_dashboard_and_the_alerts_is_one_of_the_metrics(busy: str) -> None:
    async with httpx.AsyncClient(base_url=busy, trust_env=False) as client:
        text = (await client.get("/metrics")).text
    samples = {
        sample.name
        for metric in text_string_to_metric_families(text)
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }
    query = dashboard()["templating"]["list"][1]["query"]["query"]
    used = {name for text in (*expressions(), query) for name in NAME.findall(text)}
    assert len(used) > 10
    assert used <= samples
    assert {family(name) for name in samples} == {family(name) for name in used}


def test_the_alerts_fire_when_they_should() -> None:
    promtool = program("promtool", "apt install prometheus")
    for command in (
        ["check", "rules", "rules.yml"],
        ["check", "config", "prometheus.yml"],
        ["test", "rules", "rules_test.yml"],
    ):
        done = subprocess.run(
            [promtool, *command],
            cwd=DEPLOY / "prometheus",
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


async def test_prometheus_scrapes_the_gateway_and_understands_every_panel(
    busy: str, tmp_path: Path
) -> None:
    config = (DEPLOY / "prometheus/prometheus.yml").read_text("utf-8")
    for old, new in {
        "127.0.0.1:5000": httpx.URL(busy).netloc.decode(),
        "scrape_interval: 15s": "scrape_interval: 200ms",
        "[rules.yml]": f"[{DEPLOY}/prometheus/rules.yml]",
    }.items():
        assert old in config
        config = config.replace(old, new)
    (tmp_path / "prometheus.yml").write_text(config, "utf-8")
    (port,) = free_ports(1)
    command = [
        program("prometheus", "apt install prometheus"),
        *("--config.file=prometheus.yml", "--storage.tsdb.path=data"),
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with started(command, {}, cwd=tmp_path):
        transport = httpx.AsyncHTTPTransport(retries=8)
        async with (
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}/api/v1/", transport=transport, timeout=30
            ) as client,
            asyncio.timeout(40),
        ):

            async def query(expression: str) -> list[Any]:
                answer = await client.get("query", params={"query": expression})
                if answer.status_code == 503:  # it is starting
                    return []
                assert answer.json()["status"] == "success", (expression, answer.text)
                found: list[Any] = answer.json()["data"]["result"]
                return found

            while not await query("count_over_time(ollama_web_api_requests_total[1m]) > 3"):
                await asyncio.sleep(0.1)
            for expression in expressions():
                await query(expression)
            up = await query('up{job="ollama-web-api"}')
            assert [sample["value"][1] for sample in up] == ["1"]


def test_logrotate_moves_the_log_away_and_no_line_is_lost(
    tmp_path: Path,
) -> None:
    logrotate = program("logrotate", "apt install logrotate")
    log = tmp_path / "gateway.log"
    text = (DEPLOY / "logrotate/ollama-web-api").read_text("utf-8")
    text = text.replace("/var/log/ollama-web-api/*.log", f"{tmp_path}/*.log")
    user = "root root" if os.getuid() == 0 else f"{os.getuid()} {os.getgid()}"
    text = text.replace("su ollama-web-api ollama-web-api", f"su {user}")
    (tmp_path / "logrotate.conf").write_text(text, "utf-8")
    (tmp_path / "logrotate.conf").chmod(0o600)
    tmp_path.chmod(0o700)

    (port,) = free_ports(1)
    environ = {"LOG_FILE": str(log), "LOG_FORMAT": "json", "PORT": str(port), "WEB_PORT": "0"}
    url = f"http://127.0.0.1:{port}"
    rotate: list[str | Path] = [logrotate, "--force", "--state", tmp_path / "state"]
    with (
        fake_ollama() as ollama,
        running("-m", "handlers", OLLAMA_BASE_URL=ollama, HOST="127.0.0.1", **environ),
        httpx.Client(base_url=url, transport=httpx.HTTPTransport(retries=8)) as client,
    ):
        for number in range(30):
            headers = {"X-Request-ID": f"line-{number}"}
            assert client.get("/api/health", headers=headers).status_code == 200
            if number % 10 == 5:
                while not log.exists() or f"line-{number}" not in log.read_text("utf-8"):
                    time.sleep(0.01)  # the log is written by a thread of its own
                subprocess.run([*rotate, tmp_path / "logrotate.conf"], check=True)
    ids = []
    for path in tmp_path.glob("gateway.log*"):
        data = subprocess.run(["zcat", "-f", path], capture_output=True, check=True).stdout
        ids += [json.loads(line).get("id", "") for line in data.splitlines()]
    assert sorted(i for i in ids if i.startswith("line-")) == sorted(f"line-{n}" for n in range(30))
    assert len(list(tmp_path.glob("gateway.log*"))) == 4
