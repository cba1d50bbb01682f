"""The relay and the tunnel on loopback, from the files that an operator installs."""

import asyncio
import getpass
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from configparser import ConfigParser
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil

from core.settings.schema import Settings
from tests.programs import ROOT, free_ports, program, started

FILES = ROOT / "deploy/tunnel"
SILENCE_S = 2
"""The relay's ClientAliveInterval here; with ClientAliveCountMax 1 it waits for 4 to 8 s."""

NGINX = """
daemon off;
pid nginx.pid;
error_log error.log info;
events {}
http {
    access_log access.log;
    client_body_temp_path files;
    proxy_temp_path files;
    fastcgi_temp_path files;
    scgi_temp_path files;
    uwsgi_temp_path files;
    include relay.conf;
}
"""
SSHD = """
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
"""


def edited(name: str, *changes: tuple[str, object]) -> str:
    """Return the text of a file of deploy/tunnel, with `changes` as an operator makes them."""
    text = (FILES / name).read_text("utf-8")
    for old, new in changes:
        assert old in text, f"{name} has no {old}"
        text = text.replace(old, str(new))
    return text


def make_certificates(authority: str, folder: Path) -> None:
    program("openssl", "apt install openssl")
    command: list[str | Path] = [FILES / "certificates.sh", authority, folder]
    subprocess.run(command, check=True, capture_output=True)


def settings_of(client: Path) -> dict[str, Any]:
    """Return the settings in the tunnel.env of a client's folder, read as a shell does."""
    words = shlex.split((client / "tunnel.env").read_text("utf-8"))
    settings = Settings.from_env(dict(word.split("=", 1) for word in words))
    return {
        name: value for name, value in msgspec.structs.asdict(settings).items() if "ollama" in name
    }


async def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


def listeners(port: int) -> set[int | None]:
    """Return the ids of the processes that listen on a port; connecting would use the tunnel."""
    return {
        connection.pid
        for connection in psutil.net_connections("tcp4")
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
    }


@dataclass
class Tunnel:
    """A tunnel that autossh keeps up."""

    autossh: subprocess.Popen[str]

    def ssh(self) -> psutil.Process | None:
        """Return the process that is the tunnel now."""
        children = psutil.Process(self.autossh.pid).children()
        return children[0] if children else None

    def signal(self, number: signal.Signals) -> None:
        ssh = self.ssh()
        assert ssh
        ssh.send_signal(number)

    def resume(self) -> None:
        """Resume ssh if it was stopped: autossh would wait for it forever."""
        if ssh := self.ssh():
            ssh.send_signal(signal.SIGCONT)


@dataclass
class Relay:
    """nginx and sshd, as on the machine between the functions and Ollama's."""

    folder: Path
    https_port: int
    ssh_port: int
    tunnel_port: int
    nginx: subprocess.Popen[str] = field(init=False)
    sshd: subprocess.Popen[str] = field(init=False)

    @property
    def made(self) -> Path:
        """What certificates.sh has created."""
        return self.folder / "made"

    @property
    def url(self) -> str:
        return f"https://localhost:{self.https_port}"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of a client that may use the tunnel."""
        return settings_of(self.made / "client")

    @property
    def token(self) -> str:
        token: str = self.settings["ollama_headers"]["X-Tunnel-Token"]
        return token

    def tunnel_is_up(self) -> bool:
        return bool(listeners(self.tunnel_port) & {each.pid for each in self.sessions()})

    def sessions(self) -> set[psutil.Process]:
        """Return the sshd processes that hold tunnels."""
        return set(psutil.Process(self.sshd.pid).children(recursive=True))

    async def reload(self) -> None:
        """Let nginx reload its files, and wait until no worker uses the old ones."""
        master = psutil.Process(self.nginx.pid)
        workers = set(master.children())
        master.send_signal(signal.SIGHUP)
        await until(lambda: bool(now := set(master.children())) and not now & workers)

    def ssh_config(self, ollama_port: int, tunnel_port: int | None = None) -> Path:
        """Write the configuration of the Ollama machine's ssh."""
        path = self.folder / "ssh_config"
        path.write_text(
            edited(
                "ollama-host/ssh_config",
                ("HostName relay.example.com", "HostName 127.0.0.1"),
                ("Port 22", f"Port {self.ssh_port}"),
                ("User ollama-tunnel", f"User {getpass.getuser()}"),
                ("/etc/ollama-tunnel/", f"{self.folder}/"),
                ("11434", ollama_port),
                ("15434", tunnel_port or self.tunnel_port),
            ),
            "utf-8",
        )
        return path

    @asynccontextmanager
    async def tunnel(self, ollama_port: int) -> AsyncIterator[Tunnel]:
        """Run what the Ollama machine's unit starts, until the tunnel has been up and ended."""
        program("autossh", "apt install autossh")
        self.ssh_config(ollama_port)
        unit = ConfigParser(interpolation=None, strict=False)
        unit.read_string(edited("ollama-host/ollama-tunnel.service"))
        service = unit["Service"]
        command = service["ExecStart"].replace("/etc/ollama-tunnel/", f"{self.folder}/").split()
        environ = dict(word.split("=") for word in service["Environment"].split())
        with started(command, environ) as autossh, ExitStack() as stack:
            tunnel = Tunnel(autossh)
            stack.callback(tunnel.resume)
            await until(self.tunnel_is_up)
            yield tunnel
        await until(lambda: not self.tunnel_is_up())


@contextmanager
def relay(folder: Path, *changes: tuple[str, object]) -> Iterator[Relay]:
    """Run a relay, with `changes` to nginx.conf; nothing listens on its tunnel's port yet."""
    self = Relay(folder, *free_ports(3))
    with ExitStack() as stack:
        _prepare_nginx(self, *changes)
        nginx = program("nginx", "apt install nginx")
        command: list[str | Path] = [nginx, "-e", "error.log", "-p", folder, "-c", "nginx.conf"]
        self.nginx = stack.enter_context(started(command, {}))
        _prepare_sshd(self)
        sshd = program("sshd", "apt install openssh-server")
        config, log = folder / "sshd_config", folder / "sshd.log"
        self.sshd = stack.enter_context(started([sshd, "-D", "-f", config, "-E", log], {}))
        asyncio.run(until(lambda: bool(listeners(self.https_port) and listeners(self.ssh_port))))
        yield self


def _prepare_nginx(relay: Relay, *changes: tuple[str, object]) -> None:
    make_certificates(f"localhost:{relay.https_port}", relay.made)
    shutil.copytree(relay.made / "relay", relay.folder / "ollama-relay")
    (relay.folder / "nginx.conf").write_text(NGINX, "utf-8")
    (relay.folder / "relay.conf").write_text(
        edited(
            "relay/nginx.conf",
            ("listen 443 ", f"listen 127.0.0.1:{relay.https_port} "),
            ("server_name relay.example.com", "server_name localhost"),
            ("15434", relay.tunnel_port),
            *changes,
        ),
        "utf-8",
    )


def _prepare_sshd(relay: Relay) -> None:
    program("ssh", "apt install openssh-client")
    folder, user = relay.folder, getpass.getuser()
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd wants it, systemd makes it
    keys = {}
    for name in ("id_ed25519", "host_key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", folder / name],
            check=True,
        )
        keys[name] = (folder / f"{name}.pub").read_text("utf-8").split()[1]
    known = f"[127.0.0.1]:{relay.ssh_port} ssh-ed25519 {keys['host_key']}\n"
    (folder / "known_hosts").write_text(known, "utf-8")
    (folder / "authorized_keys").write_text(
        edited("relay/authorized_keys", ("KEY", keys["id_ed25519"]), ("15434", relay.tunnel_port)),
        "utf-8",
    )
    own = SSHD.format(port=relay.ssh_port, folder=folder)
    shipped = edited(
        "relay/sshd_config",
        ("Match User ollama-tunnel", f"Match User {user}"),
        ("15434", relay.tunnel_port),
        ("ClientAliveInterval 5", f"ClientAliveInterval {SILENCE_S}"),
        ("ClientAliveCountMax 3", "ClientAliveCountMax 1"),
    )
    (folder / "sshd_config").write_text(own + shipped, "utf-8")
