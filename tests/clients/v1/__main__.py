"""`python -m tests.clients.v1`: path x fault x client, and what was raised, as Markdown."""

import asyncio
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from tests.clients.v1.faults import Row, rows
from tests.clients.v1.programs import CLIENTS, install_for_node, missing
from tests.fake_ollama import FakeOllama
from tests.handlers.test_v1 import KEYS, MODEL
from tests.processes import bundle


async def _all(folder: Path) -> list[Row]:
    install_for_node(folder)
    found: list[Row] = []
    async with FakeOllama() as fake:
        with bundle(fake.url, API_KEYS=KEYS, DEFAULT_MODEL=MODEL, RATE_LIMIT="off") as url:
            for client in CLIENTS:
                if why := missing(client):
                    print(f"{client.title} is left out: {why}", file=sys.stderr)
                    continue
                print(f"{client.title} at {client.path} ...", file=sys.stderr)
                found += await rows(client, fake, url, folder)
    return found


def main() -> int:
    """Print a table for each path; return 1 if a broken answer looked complete to a client."""
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(_all(Path(folder)))
    by_path: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for row in found:
        by_path[row.path][row.fault][row.client] = row.raised or "**nothing**"
    for path, faults in by_path.items():
        clients = [*next(iter(faults.values()))]
        print(f"\n| POST {path} | {' | '.join(clients)} |\n|---|{'---|' * len(clients)}")
        for fault, raised in faults.items():
            print(f"| {fault} | {' | '.join(raised[client] for client in clients)} |")
    return int(not all(row.raised for row in found))


if __name__ == "__main__":
    sys.exit(main())
