"""The firewall's rules, in a network of two machines made for the test."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.programs import ROOT, program, started

PORTS = (22, 443, 5000, 8080, 11434)
FRIEND, STRANGER = "192.168.77.2", "203.0.113.2"
FRIEND_6, STRANGER_6 = "fd00:77::2", "2001:db8:77::2"
SERVER = """
import socket, sys
servers = [socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
           for port in sys.argv[1:]]
http3 = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
http3.bind(("::", 443))
print("listening", flush=True)
while True:
    http3.sendto(*http3.recvfrom(100))
"""
CALLER = """
import socket, sys
source, target, *ports = sys.argv[1:]
for port in ports:
    try:
        socket.create_connection((target, int(port)), 0.5, (source, 0)).close()
        print(port)
    except OSError:
        pass
"""
HTTP3_CALLER = """
import socket, sys
source, target, wait_s = sys.argv[1:]
client = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_DGRAM)
client.bind((source, 0))
client.settimeout(float(wait_s))
client.sendto(b"hello", (target, 443))
try:
    print(client.recv(100).decode())
except TimeoutError:
    pass
"""


@dataclass(frozen=True)
class Network:
    """Two network namespaces with a cable between them; the server listens on PORTS."""

    server: str
    client: str

    def run(self, *command: str | Path, on: str) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", on, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def reached(self, source: str) -> set[int]:
        """Return the ports that a client with the address `source` reaches."""
        ports = map(str, PORTS)
        target = self._server_beside(source)
        answer = self.run(sys.executable, "-c", CALLER, source, target, *ports, on=self.client)
        return {int(port) for port in answer.split()}

    def reached_over_udp(self, source: str, wait_s: float = 20) -> bool:
        """Return whether a client with the address `source` reaches port 443 over UDP."""
        target = self._server_beside(source)
        command = (sys.executable, "-c", HTTP3_CALLER, source, target, str(wait_s))
        return self.run(*command, on=self.client) == "hello\n"

    def _server_beside(self, source: str) -> str:
        head, _, _ = source.rpartition(":" if ":" in source else ".")
        return f"{head}{':' if ':' in source else '.'}1"


@pytest.fixture
def network() -> Iterator[Network]:
    if os.getuid() != 0:
        pytest.skip("only root can make network namespaces")
    ip = program("ip", "apt install iproute2")
    network = Network(f"owa-server-{os.getpid()}", f"owa-client-{os.getpid()}")
    addresses = {
        network.server: ("192.168.77.1/24", "203.0.113.1/24", "fd00:77::1/64", "2001:db8:77::1/64"),
        network.client: (f"{FRIEND}/24", f"{STRANGER}/24", f"{FRIEND_6}/64", f"{STRANGER_6}/64"),
    }
    made = []
    try:
        for name in addresses:
            subprocess.run([ip, "netns", "add", name], check=True)
            made.append(name)
        cable = ("link", "add", "eth0", "netns", network.server, "type", "veth", "peer", "name")
        subprocess.run([ip, *cable, "eth0", "netns", network.client], check=True)
        for name, own in addresses.items():
            for address in own:
                nodad = ("nodad",) if ":" in address else ()
                network.run(ip, "address", "add", address, "dev", "eth0", *nodad, on=name)
            for device in ("lo", "eth0"):
                network.run(ip, "link", "set", device, "up", on=name)
        command = [ip, "netns", "exec", network.server, sys.executable, "-c", SERVER]
        with started([*command, *map(str, PORTS)], {}) as server:
            assert server.stdout
            assert server.stdout.readline() == "listening\n"
            yield network
    finally:
        for name in made:
            subprocess.run([ip, "netns", "del", name], check=True)


def test_nftables_let_named_networks_reach_https_but_not_ollama(network: Network) -> None:
    nft = program("nft", "apt install nftables")
    for source in (FRIEND, STRANGER, FRIEND_6, STRANGER_6):
        assert network.reached(source) == set(PORTS)
        assert network.reached_over_udp(source)
    for _ in range(2):  # loading it again replaces it
        network.run(nft, "-f", ROOT / "deploy/firewall/nftables.conf", on=network.server)
    for source in (FRIEND, FRIEND_6):
        assert network.reached(source) == {22, 443}
        assert network.reached_over_udp(source)
    for source in (STRANGER, STRANGER_6):
        assert network.reached(source) == {22}
        assert not network.reached_over_udp(source, 0.5)
    local = network.run(
        sys.executable, "-c", CALLER, "127.0.0.1", "127.0.0.1", "11434", on=network.server
    )
    assert local == "11434\n"


def test_ufw_lets_named_networks_reach_https_but_not_ollama(
    network: Network, tmp_path: Path
) -> None:
    program("ufw", "apt install ufw")
    # "ip netns exec" has mounts of its own, so that the machine's ufw keeps its rules.
    script = f"""
        set -e
        cp -a /etc/ufw /etc/default {tmp_path}
        mount --bind {tmp_path}/ufw /etc/ufw
        mount --bind {tmp_path}/default /etc/default
        mount -t tmpfs none /run
        ufw default allow incoming
        ufw allow 22/tcp
        {ROOT}/deploy/firewall/ufw.sh 192.168.0.0/16 fd00::/8
        ufw --force enable
        ufw status
    """
    status = network.run("sh", "-c", script, on=network.server)
    assert "Status: active" in status
    for source in (FRIEND, FRIEND_6):
        assert network.reached(source) == {22, 443}
    for source in (STRANGER, STRANGER_6):
        assert network.reached(source) == {22}
        assert not network.reached_over_udp(source, 0.5)
