import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from core.gate.addresses import ClientAddressMiddleware
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
        (", ,", "10.0.0.1"),
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
    header = ("X-Forwarded-Proto", value)
    assert await resolved("10.0.0.1", header, trusted="10.0.0.1") == f"10.0.0.1 {scheme}"


async def test_an_untrusted_local_proxy_makes_nobody_local() -> None:
    for name in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP", "X-Forwarded-Proto"):
        assert await resolved("127.0.0.1", (name, "127.0.0.1")) == f"{NOWHERE} http"


async def test_behind_a_trusted_local_proxy_local_clients_are_local() -> None:
    headers = [forwarded_for("::1"), ("X-Forwarded-Proto", "https")]
    assert await resolved("127.0.0.1", *headers, trusted="127.0.0.1") == "::1 https"
    assert await resolved("127.0.0.1", trusted="127.0.0.1") == "127.0.0.1 http"
