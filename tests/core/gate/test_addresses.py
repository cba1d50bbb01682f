import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from core.gate.addresses import PROXY_HEADERS, ClientAddressMiddleware
from core.settings.networks import UNKNOWN, Networks

NOWHERE = str(UNKNOWN)


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the client's address and scheme."""
    request = Request(scope)
    assert request.client
    response = PlainTextResponse(f"{request.client.host} {request.url.scheme}")
    await response(scope, receive, send)


async def resolved(peer: str | None, *headers: tuple[str, str], trusted: str = "none") -> str:
    app = ClientAddressMiddleware(tell, trusted_proxies=Networks(trusted))
    client = (peer, 1234) if peer else None
    transport = httpx.ASGITransport(app, client=client)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        return (await http.get("/", headers=headers)).text


def forwarded_for(value: str) -> tuple[str, str]:
    return ("X-Forwarded-For", value)


async def test_the_peer_is_the_client() -> None:
    assert await resolved("192.0.2.1") == "192.0.2.1 http"
    assert await resolved("::ffff:192.0.2.1") == "192.0.2.1 http"
    assert await resolved("127.0.0.1") == "127.0.0.1 http"
    assert await resolved(None) == f"{NOWHERE} http"


async def test_an_untrusted_peers_headers_are_ignored() -> None:
    headers = [forwarded_for("127.0.0.1"), ("X-Forwarded-Proto", "https")]
    assert await resolved("192.0.2.1", *headers) == "192.0.2.1 http"
    assert await resolved("192.0.2.1", *headers, trusted="10.0.0.0/8") == "192.0.2.1 http"


@pytest.mark.parametrize(
    ("entries", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("127.0.0.1, 192.0.2.1", "192.0.2.1"),
        ("127.0.0.1, 192.0.2.1, 10.0.0.7", "192.0.2.1"),
        ("192.0.2.1:5555,10.0.0.7:80", "192.0.2.1"),
        ("[2001:db8::1]:5555", "2001:db8::1"),
        ("10.0.0.8, 10.0.0.7", "10.0.0.8"),
        (", ,", NOWHERE),
        ("192.0.2.1, unknown", NOWHERE),
        ("192.0.2.1, unix:, 10.0.0.7", NOWHERE),
        ("127.0.0.1", NOWHERE),
        ("::1, 10.0.0.7", NOWHERE),
    ],
)
async def test_trusted_proxies_are_skipped_from_the_right(entries: str, client: str) -> None:
    found = await resolved("10.0.0.1", forwarded_for(entries), trusted="10.0.0.0/8")
    assert found == f"{client} http"


async def test_several_header_lines_are_one_list() -> None:
    lines = [forwarded_for("127.0.0.1"), forwarded_for("192.0.2.1"), forwarded_for("10.0.0.7")]
    assert await resolved("10.0.0.1", *lines, trusted="10.0.0.0/8") == "192.0.2.1 http"


@pytest.mark.parametrize(
    ("value", "scheme"),
    [("https", "https"), ("https, http", "http"), ("http, https", "https"), ("javascript", "http")],
)
async def test_a_trusted_proxy_sets_the_scheme(value: str, scheme: str) -> None:
    headers = [("X-Forwarded-Proto", value), forwarded_for("192.0.2.1")]
    assert await resolved("10.0.0.1", *headers, trusted="10.0.0.1") == f"192.0.2.1 {scheme}"


@pytest.mark.parametrize("name", [name.decode() for name in sorted(PROXY_HEADERS)])
async def test_an_untrusted_local_proxy_makes_nobody_local(name: str) -> None:
    assert await resolved("127.0.0.1", (name, "127.0.0.1")) == f"{NOWHERE} http"
    assert await resolved("::1", (name, "127.0.0.1")) == f"{NOWHERE} http"


@pytest.mark.parametrize("proxy", ["127.0.0.1", "10.0.0.1"])
@pytest.mark.parametrize("name", [name.decode() for name in sorted(PROXY_HEADERS)])
async def test_a_trusted_proxy_that_names_no_client_is_a_stranger(
    name: str, proxy: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers = [(name, "" if name == "x-forwarded-for" else "127.0.0.1")]
    assert (await resolved(proxy, *headers, trusted=proxy)).split()[0] == NOWHERE
    (line,) = caplog.messages
    assert line.startswith(f"A proxy of TRUSTED_PROXIES at {proxy} sends {name} but no client")
    assert "proxy_set_header X-Forwarded-For $remote_addr" in line


async def test_what_is_wrong_with_a_proxy_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    app = ClientAddressMiddleware(tell, trusted_proxies=Networks("10.0.0.1"))
    transport = httpx.ASGITransport(app, client=("10.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        for _ in range(3):
            assert (await http.get("/", headers={"Via": "x"})).text == f"{NOWHERE} http"
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("real", "entries", "client"),
    [
        ("192.0.2.1", "127.0.0.1", NOWHERE),  # the proxy sets X-Real-IP and passes on the rest
        ("192.0.2.1", "192.0.2.7", NOWHERE),
        ("nonsense", "192.0.2.7", NOWHERE),
        ("192.0.2.1", "127.0.0.1, 192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.1, 10.0.0.9", "192.0.2.1"),
        ("10.0.0.9", "192.0.2.1", "192.0.2.1"),  # it passes on what another trusted proxy wrote
    ],
)
async def test_a_proxy_that_contradicts_itself_is_a_stranger(
    real: str, entries: str, client: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers = [("X-Real-IP", real), forwarded_for(entries)]
    assert await resolved("10.0.0.1", *headers, trusted="10.0.0.0/8") == f"{client} http"
    assert len(caplog.messages) == (client == NOWHERE)


async def test_a_loopback_address_behind_a_proxy_is_a_stranger() -> None:
    for entries in ("::1", "127.0.0.1", "192.0.2.1, 127.0.0.8"):
        headers = [forwarded_for(entries), ("X-Forwarded-Proto", "https")]
        assert await resolved("127.0.0.1", *headers, trusted="127.0.0.1") == f"{NOWHERE} https"
    assert await resolved("127.0.0.1", trusted="127.0.0.1") == "127.0.0.1 http"
