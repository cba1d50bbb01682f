"""start.sh, and install.sh and its units, on a small Debian machine."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.debian.conftest import Debian, Machine
from tests.programs import ROOT

pytestmark = pytest.mark.timeout(400)  # the first test waits for the machine to be made

GATEWAY = "ollama-web-api"
ENGINE = "ollama-web-api-engine"
CURRENT = "/opt/ollama-web-api/current"
SOURCE = ("core", "deploy", "handlers")
OLLAMA = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n"


# Starts it as a user does, asks the README's own question, and ends it with Ctrl-C's signal.
FIRST_MINUTE = """
cd ~/project
./start.sh & server=$!
until curl -sS -o answer http://127.0.0.1:5000/api/chat --json '{"message":"What is 2+2?"}'
do kill -0 $server || exit; sleep 0.5; done
kill -INT $server
wait $server || [ $? = 130 ]
"""


def install(machine: Machine, *options: str, check: bool = True) -> str:
    """Run it as root with a strict umask, which the service's user must not notice."""
    strict = 'umask 077; exec /src/deploy/install.sh "$@"'
    return machine.run("sh", "-c", strict, "install", *options, check=check)


def show(machine: Machine, unit: str, name: str) -> str:
    return machine.run("systemctl", "show", "--value", "--property", name, unit).strip()


def version(machine: Machine) -> str:
    return machine.run("readlink", CURRENT).strip()


def call(machine: Machine, path: str, *options: str) -> str:
    """Call the gateway from its own machine until it answers."""
    patient = ("--retry", "20", "--retry-delay", "1", "--retry-all-errors", "--fail-with-body")
    return machine.run("curl", "-s", *patient, *options, f"http://127.0.0.1:5000{path}")


def never_starts(main: str) -> str:
    """Return the code of a version that passes its check, and ends when it is to serve."""
    return main.replace("serve(app, settings)", "sys.exit(1)")


def copy_of_the_project(folder: Path) -> None:
    for name in SOURCE:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in ("pyproject.toml", "requirements.txt", "start.sh"):
        shutil.copy(ROOT / name, folder)


def test_a_user_of_a_bare_debian_gets_an_answer_in_the_first_minute(
    debian: Debian, wheels: Path
) -> None:
    machine = Machine(debian.machine, wheels)
    assert "libgomp" not in machine.run("find", "/usr/lib")
    machine.run("useradd", "--create-home", "visitor")
    copy_of_the_project(machine.root / "home/visitor/project")
    machine.run("chown", "--recursive", "visitor:", "/home/visitor")
    said = machine.run("runuser", "-u", "visitor", "--", "bash", "-c", FIRST_MINUTE)
    assert "no Ollama found: answering with the small built-in model" in said
    answer = json.loads((machine.root / "home/visitor/project/answer").read_bytes())
    assert answer["success"] is True, answer
    assert "4" in answer["response"]
    machine.run("userdel", "--remove", "visitor")


@pytest.fixture(scope="module")
def machine(debian: Debian, wheels: Path) -> Iterator[Machine]:
    """A machine on which the service was installed before its first boot, beside an Ollama."""
    machine = Machine(debian.machine, wheels)
    copy_of_the_project(machine.root / "src")
    (machine.root / "etc/systemd/system/ollama.service").write_text(OLLAMA, "utf-8")
    machine.run("systemctl", "enable", "ollama")

    assert "--purge" in install(machine, "--yes", "--purge", check=False)
    assert not (machine.root / "opt/ollama-web-api").exists()
    plan = install(machine, "--dry-run", "--engine")
    assert "add the system user ollama-web-api" in plan
    assert not (machine.root / "opt/ollama-web-api").exists()
    refused = install(machine, check=False)
    assert "Nothing was done" in refused
    assert not (machine.root / "opt/ollama-web-api").exists()
    done = install(machine, "--yes", "--engine")
    assert "will start at the next boot" in done
    with machine.booted():
        yield machine


def test_the_service_answers_after_a_boot_and_has_few_rights(machine: Machine) -> None:
    question = '{"message":"What is 2+2?","options":{"num_predict":4}}'
    answer = call(machine, "/api/chat", "--json", question)
    assert '"model":"smollm2:135m"' in answer
    assert '"done":true' in answer
    for unit in (GATEWAY, ENGINE):
        pid = show(machine, unit, "MainPID")
        status = machine.run("cat", f"/proc/{pid}/status")
        uid = machine.run("id", "--user", "ollama-web-api").strip()
        assert f"Uid:\t{uid}" in status
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
    deadline = time.monotonic() + 20
    while '"status":200' not in machine.run("journalctl", "--unit", GATEWAY):
        assert time.monotonic() < deadline, "the request is not in the journal"
    diagnosis = machine.run(GATEWAY, "doctor")
    assert "this gateway answers on PORT 5000" in diagnosis
    assert "FAIL" not in diagnosis


def test_the_units_are_valid_and_exposed_little(machine: Machine) -> None:
    for unit in (GATEWAY, ENGINE):
        path = f"/etc/systemd/system/{unit}.service"
        assert machine.run("systemd-analyze", "verify", path) == ""
        # At most 1.2, on its scale from 0 to 10; a unit that says nothing gets 9.6.
        machine.run("systemd-analyze", "security", "--offline=yes", "--threshold=12", path)


def test_a_key_is_made_for_the_service_which_then_takes_it(machine: Machine) -> None:
    said = machine.run(GATEWAY, "keys", "create", "--name", "test")
    (key,) = (line for line in said.splitlines() if line.startswith("owa_"))
    header = ("--header", f"X-API-Key: {key}", "--header", "X-Forwarded-For: 192.0.2.1")
    assert '"smollm2:135m"' in call(machine, "/api/models", *header)
    refused = machine.run("curl", "-s", "http://127.0.0.1:5000/api/models", *header[2:])
    assert "API key" in refused


def test_installing_it_again_does_nothing(machine: Machine) -> None:
    before = show(machine, GATEWAY, "InvocationID")
    assert install(machine, "--yes") == "Nothing to do\n"
    assert show(machine, GATEWAY, "InvocationID") == before


def test_a_crash_is_followed_by_a_start(machine: Machine) -> None:
    call(machine, "/api/health")
    pid = show(machine, GATEWAY, "MainPID")
    machine.run("kill", "-KILL", pid)
    deadline = time.monotonic() + 20
    while show(machine, GATEWAY, "MainPID") in {pid, "0"}:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    call(machine, "/api/health")


def test_a_server_that_hangs_is_killed_and_started_again(machine: Machine) -> None:
    call(machine, "/api/health")
    override = machine.root / f"etc/systemd/system/{GATEWAY}.service.d/override.conf"
    override.parent.mkdir()
    override.write_text("[Service]\nWatchdogSec=1\nTimeoutAbortSec=1\n", "utf-8")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", GATEWAY)
    pid = show(machine, GATEWAY, "MainPID")
    machine.run("kill", "-STOP", pid)
    deadline = time.monotonic() + 20
    while show(machine, GATEWAY, "MainPID") in {pid, "0"}:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "watchdog" in machine.run("journalctl", "--unit", GATEWAY).lower()
    shutil.rmtree(override.parent)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", GATEWAY)
    assert "connected" in call(machine, "/api/health")


def test_it_is_upgraded_rolled_back_and_kept_from_a_version_that_does_not_start(
    machine: Machine,
) -> None:
    ollama = show(machine, "ollama", "InvocationID")
    first = version(machine)
    health = machine.root / "src/handlers/health.py"
    main = machine.root / "src/handlers/__main__.py"
    unit = machine.root / f"src/deploy/systemd/{GATEWAY}.service"
    installed = machine.root / f"etc/systemd/system/{GATEWAY}.service"
    original = unit.read_text("utf-8")
    health.write_text(health.read_text("utf-8").replace("/api/health", "/api/second"), "utf-8")
    unit.write_text(f"{original}# second\n", "utf-8")
    install(machine, "--yes")
    second = version(machine)
    assert second != first
    assert "connected" in call(machine, "/api/second")

    install(machine, "--yes", "--rollback")
    assert version(machine) == first
    assert installed.read_text("utf-8") == original
    assert "connected" in call(machine, "/api/health")
    install(machine, "--yes", "--rollback")
    assert version(machine) == second
    assert installed.read_text("utf-8") == f"{original}# second\n"

    right = main.read_text("utf-8")
    main.write_text(never_starts(right), "utf-8")
    unit.write_text(f"{original}# third\n", "utf-8")
    settings = machine.root / "etc/ollama-web-api/gateway.env"
    kept = settings.read_text("utf-8")
    running = show(machine, GATEWAY, "InvocationID")
    for line, said in (
        ("PORT=many", "PORT is invalid"),
        ("SSL_CERTFILE=/etc/ssl/none.pem", "SSL_CERTFILE or SSL_KEYFILE is invalid"),
        ("API_KEYS_FILE=/root/keys.json", "API_KEYS_FILE cannot be read: Permission denied"),
    ):
        settings.write_text(f"{kept}{line}\n", "utf-8")
        assert said in install(machine, "--yes", check=False)
        assert version(machine) == second
        assert installed.read_text("utf-8") == f"{original}# second\n"
    settings.write_text(kept, "utf-8")
    assert show(machine, GATEWAY, "InvocationID") == running
    failed = install(machine, "--yes", check=False)
    assert f"and {second.removeprefix('releases/')} runs again" in failed
    assert version(machine) == second
    assert installed.read_text("utf-8") == f"{original}# second\n"
    assert "connected" in call(machine, "/api/second")

    main.write_text(right, "utf-8")
    unit.write_text(original, "utf-8")
    health.write_text(health.read_text("utf-8").replace("/api/second", "/api/health"), "utf-8")
    install(machine, "--yes")
    assert version(machine) == first
    assert show(machine, "ollama", "InvocationID") == ollama, "Ollama was touched"


def test_it_is_removed_without_a_trace(machine: Machine) -> None:
    ollama = show(machine, "ollama", "InvocationID")
    kept = install(machine, "--yes", "--uninstall")
    assert "--purge removes them" in kept
    assert (machine.root / "etc/ollama-web-api/gateway.env").exists()
    assert (machine.root / "var/lib/ollama-web-api/keys.json").exists()
    assert show(machine, GATEWAY, "LoadState") == "not-found"
    assert install(machine, "--yes", "--uninstall").endswith(
        "--purge removes them\nNothing to do\n"
    )
    for path in (
        "fail2ban/jail.d/ollama-web-api.conf",
        "logrotate.d/ollama-web-api",
        "systemd/system/ollama-web-api.service.d/override.conf",
        "systemd/system/ollama-web-api-engine.service.d/override.conf",
    ):
        copy = machine.root / "etc" / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.touch()
    install(machine, "--yes", "--uninstall", "--purge")
    assert install(machine, "--yes", "--uninstall", "--purge") == "Nothing to do\n"
    left = machine.run("find", "/etc", "/opt", "/usr/local", "/var", "-name", "ollama-web-api*")
    assert left == ""
    assert "no such user" in machine.run("id", GATEWAY, check=False)
    assert show(machine, "ollama", "InvocationID") == ollama, "Ollama was touched"
    rolled_back = install(machine, "--yes", "--rollback", check=False)
    assert rolled_back.startswith("There is no previous version")


def test_an_engine_goes_where_its_packages_are(machine: Machine) -> None:
    install(machine, "--yes")
    first = version(machine)
    main = machine.root / "src/handlers/__main__.py"
    right = main.read_text("utf-8")
    main.write_text(never_starts(right), "utf-8")
    assert "runs again" in install(machine, "--yes", "--engine", check=False)
    assert version(machine) == first
    assert show(machine, ENGINE, "LoadState") == "not-found", "it has no packages, and crashes"
    assert '"status":"ok"' in call(machine, "/api/health")

    main.write_text(f"{right}# second\n", "utf-8")
    install(machine, "--yes", "--engine")
    install(machine, "--yes", "--rollback")
    assert version(machine) == first
    engine = "http://127.0.0.1:11436/api/version"
    machine.run("curl", "-s", "--retry", "20", "--retry-connrefused", engine)
    install(machine, "--yes", "--uninstall", "--purge")
