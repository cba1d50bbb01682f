"""How many connections may be open, and which are closed when there are more."""

import asyncio
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from core.contract.errors import ApiError
from core.contract.retryable import RateLimited, TooManyConnections
from core.serving import connections
from core.serving.connections import Connections
from core.serving.protocol import Protocol
from core.settings.networks import Networks
from core.settings.schema import Settings
from tests.conftest import Serve
from tests.fake_ollama import FakeOllama, never_answers
from tests.programs import ROOT

GET = b"GET /api/models HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Idle:
    """A connection as `Connections` sees it."""

    def __init__(self) -> None:
        self.closed = False

    def close_idle(self, refusal: ApiError) -> None:
        self.closed = True


def limited(most: int = 3, per_client: int = 100, **values: Any) -> Connections:
    settings = {"max_connections": most, "max_connections_per_client": per_client, **values}
    return Connections(Settings(**settings))


def opened(table: Connections, count: int, host: str = "192.0.2.1") -> list[Idle]:
    made = [Idle() for _ in range(count)]
    for connection in made:
        assert table.add(connection, host) is None
    return made


def test_the_oldest_stranger_makes_room_then_the_oldest_known() -> None:
    table = limited(3)
    known, first, second = opened(table, 3)
    table.begin(known)
    table.end(known, known=True)
    opened(table, 1)
    assert [known.closed, first.closed, second.closed] == [False, True, False]
    (third,) = opened(table, 1)
    assert [known.closed, second.closed, third.closed] == [False, True, False]
    for connection in (third, *opened(table, 1)):
        table.begin(connection)
    opened(table, 1)
    assert known.closed


def test_what_has_idled_makes_room_before_a_newcomer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(connections, "monotonic", lambda: now)
    table = limited(3)
    stranger, known = opened(table, 2)
    table.begin(known)
    table.end(known, known=True)
    now += connections.ARRIVING_S
    (newcomer,) = opened(table, 1)
    opened(table, 1)
    assert [stranger.closed, known.closed, newcomer.closed] == [True, False, False]
    opened(table, 1)
    assert [known.closed, newcomer.closed] == [True, False]
    opened(table, 1)
    assert newcomer.closed


def test_a_request_in_progress_is_never_closed_for_a_newcomer() -> None:
    table = limited(2)
    busy = opened(table, 2)
    for connection in busy:
        table.begin(connection)
    newcomer = Idle()
    assert isinstance(table.add(newcomer, "192.0.2.9"), TooManyConnections)
    table.remove(newcomer)
    assert not any(connection.closed for connection in busy)
    table.end(busy[0], known=True)
    opened(table, 1)
    assert busy[0].closed


def test_one_address_cannot_take_all_of_them() -> None:
    table = limited(100, per_client=2)
    busy = opened(table, 2)
    for connection in busy:
        table.begin(connection)
    refused = Idle()
    assert isinstance(table.add(refused, "192.0.2.1"), RateLimited)
    table.remove(refused)
    (other,) = opened(table, 1, "192.0.2.2")
    table.end(busy[1], known=True)
    opened(table, 1)
    assert busy[1].closed, "its own idle one makes room"
    assert not other.closed


def test_an_ipv6_network_is_one_client() -> None:
    table = limited(1000, per_client=2)
    opened(table, 1, "2001:db8::1")
    opened(table, 1, "2001:db8::2")
    third = opened(table, 1, "2001:db8:0:1::3")
    first = opened(table, 1, "2001:db8::3")
    assert not third[0].closed
    assert not first[0].closed


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "", "10.0.0.5"])
def test_loopback_and_trusted_proxies_stand_for_many_clients(host: str) -> None:
    table = limited(100, per_client=2, trusted_proxies=Networks("10.0.0.0/8"))
    assert not any(connection.closed for connection in opened(table, 50, host))


def test_every_connection_is_forgotten() -> None:
    table = limited(1000)
    for round_ in range(3):
        made = opened(table, 50, f"192.0.2.{round_}")
        for connection in made[::2]:
            table.begin(connection)
            table.end(connection, known=True)
        for connection in made:
            table.remove(connection)
            table.remove(connection)
            table.end(connection, known=True)
    assert [*table._open, *table._count, *table._known, *table._strangers] == []


def test_it_is_logged_once_and_names_the_address(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = limited(5)
    opened(table, 20, "192.0.2.1")
    (line,) = caplog.messages
    assert line.startswith("5 connections are open, as many as MAX_CONNECTIONS")
    assert line.endswith("come from 192.0.2.1")
    monkeypatch.setattr(connections, "LOG_INTERVAL_S", 0)
    table._log_at = 0
    opened(table, 2)
    assert len(caplog.messages) == 3


@pytest.fixture
def few_files() -> Iterator[int]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, before[1]))
    yield 300
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_of_files_limits_connections(few_files: int) -> None:
    assert 100 < Connections(Settings()).most < few_files - 50
    assert limited(20).most == 20


def test_too_few_files_are_logged(few_files: int, caplog: pytest.LogCaptureFixture) -> None:
    Connections(Settings(max_concurrent=4))
    assert caplog.messages == []
    assert 0 < Connections(Settings(max_concurrent=500)).most <= few_files // 2
    (line,) = caplog.messages
    assert line.startswith(f"Only {few_files} files may be open, too few for MAX_CONCURRENT (500)")


def test_those_beyond_the_limit_may_read_why_while_files_are_left(few_files: int) -> None:
    table = Connections(Settings())
    busy = [Idle() for _ in range(table.most)]
    for connection in busy:
        table.add(connection, "")
        table.begin(connection)
    refused = [Idle() for _ in range(few_files)]
    for connection in refused:
        assert isinstance(table.add(connection, ""), TooManyConnections)
    staying = [connection for connection in refused if table.may_linger(connection)]
    assert 20 < len(staying) < few_files - table.most - 10
    assert table.may_linger(busy[0]), "it is counted already"
    table.remove(staying[0])
    assert table.may_linger(Idle())
    assert not table.may_linger(Idle())


def test_the_server_takes_all_the_files_that_it_may_have() -> None:
    code = """if True:
        import resource
        from core.serving.connections import raise_file_limit
        raise_file_limit()
        print(resource.getrlimit(resource.RLIMIT_NOFILE))"""
    shell = f'ulimit -Sn 256; ulimit -Hn 3000; exec "{sys.executable}" -c "$0"'
    done = subprocess.run(
        ["bash", "-c", shell, code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "(3000, 3000)"


# Over sockets


async def test_a_thousand_idle_connections_shut_nobody_out(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    url = httpx.URL(await serve(max_connections=50))
    streams = [await asyncio.open_connection(url.host, url.port) for _ in range(200)]
    async with httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/api/models")).status_code == 200
        streams += [await asyncio.open_connection(url.host, url.port) for _ in range(100)]
        assert (await client.get("/api/models")).status_code == 200
        async with asyncio.timeout(20):
            told = [await streams[number][0].read() for number in range(200)]
        assert all(text.startswith(b"HTTP/1.1 503 ") for text in told), "a request was on its way"
    assert len([line for line in caplog.messages if "MAX_CONNECTIONS" in line]) == 1
    for _, writer in streams:
        writer.close()


async def test_a_running_answer_survives_a_flood_of_connections(
    serve: Serve, fake: FakeOllama
) -> None:
    fake.reply(never_answers)
    base = await serve(max_connections=10, request_timeout_s=2)
    url = httpx.URL(base)
    async with httpx.AsyncClient(base_url=base, timeout=10) as client:
        chat = asyncio.create_task(client.post("/api/chat", json={"message": "hi"}))
        await fake.wait_for(1)
        for _ in range(50):
            _, writer = await asyncio.open_connection(url.host, url.port)
            writer.close()
        assert (await chat).status_code == 504


async def test_too_many_connections_of_one_address_get_a_429(
    serve: Serve, fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Protocol, "_host", property(lambda _: "192.0.2.7"))
    fake.reply(never_answers, never_answers)
    base = await serve(max_connections_per_client=2)
    url = httpx.URL(base)
    async with httpx.AsyncClient(base_url=base) as client:
        chats = [
            asyncio.create_task(client.post("/api/chat", json={"message": "hi"})) for _ in range(2)
        ]
        await fake.wait_for(2)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(GET)
        answer = await reader.read()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 429 ")
        assert b"retry-after: " in head.lower()
        assert "too many connections: 2 are allowed" in json.loads(body)["error"]
        writer.close()
        for chat in chats:
            chat.cancel()
        await asyncio.gather(*chats, return_exceptions=True)
        for request in fake.asked():
            await request.disconnected.wait()
        assert (await client.get("/api/models")).status_code == 200
