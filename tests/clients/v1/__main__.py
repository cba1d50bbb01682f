"""`python -m tests.clients.v1`: path x fault x client, and what was raised, as Markdown.

A second table has the milliseconds until a client that leaves has freed the GPU.
"""

import asyncio
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

from tests.clients.v1.faults import Row, rows
from tests.clients.v1.programs import CLIENTS, install_for_node, missing
from tests.compatible import KEYS, MODEL
from tests.fake_ollama import FakeOllama
from tests.leaving import LEAVABLE, seconds_until_freed
from tests.processes import bundle

LEAVES = 50
"""How often a client leaves each path."""

Freed = dict[str, list[float]]


async def _all(folder: Path) -> tuple[list[Row], Freed]:
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
        return found, await _freed(fake)


async def _freed(fake: FakeOllama) -> Freed:
    """Leave each path often, in its stream and before it begins; return the milliseconds."""
    freed: Freed = defaultdict(list)
    with bundle(fake.url, MAX_CONCURRENT="1", RATE_LIMIT="off") as url:
        for path in LEAVABLE:
            for has_begun in (True, False):
                name = f"{path}, {'in its stream' if has_begun else 'before it begins'}"
                for _ in range(LEAVES):
                    taken_s = await seconds_until_freed(fake, url, path, has_begun=has_begun)
                    freed[name].append(taken_s * 1000)
    return freed


def main() -> int:
    """Print the tables; return 1 if a client mistook a broken answer for a whole one or back."""
    with tempfile.TemporaryDirectory() as folder:
        found, freed = asyncio.run(_all(Path(folder)))
    by_path: dict[str, dict[str, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for row in found:
        by_path[row.path][row.case.name][row.client] = row.outcome or "**wrong**"
    for path, faults in by_path.items():
        clients = [*next(iter(faults.values()))]
        print(f"\n| POST {path} | {' | '.join(clients)} |\n|---|{'---|' * len(clients)}")
        for fault, raised in faults.items():
            print(f"| {fault} | {' | '.join(raised[client] for client in clients)} |")
    print("\n| a client leaves | median ms | most ms |\n|---|---|---|")
    for name, times in freed.items():
        print(f"| {name} | {median(times):.1f} | {max(times):.1f} |")
    return int(not all(row.outcome for row in found))


if __name__ == "__main__":
    sys.exit(main())
