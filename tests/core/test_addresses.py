import asyncio
from ipaddress import ip_address
from typing import Any

import httpx
import pytest
from mangum import Mangum
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from core.addresses import UNKNOWN, ClientAddressMiddleware, Networks, parse_address

NOWHERE = str(UNKNOWN)


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the client's address and scheme."""
    request = Request(scope)
    assert request.client
    response = PlainTextResponse(f"{request.client.host} {request.url.scheme}")
    await response(scope, receive, send)


async def resolved(
    peer: str | None, *headers: tuple[str, str], trusted: str = "none", lambda_: bool = False
) -> str:
    app = ClientAddressMiddleware(
        tell, trusted_proxies=Networks(trusted), behind_lambda_adapter=lambda_
    )
    client = (peer, 1234) if peer else None
    transport = httpx.ASGITransport(app, client=client)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        return (await http.get("/", headers=headers)).text


def forwarded_for(value: str) -> tuple[str, str]:
    return ("X-Forwarded-For", value)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" 192.0.2.1:8080 ", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("[::ffff:c000:201]:80", "192.0.2.1"),
    ],
)
def test_addresses_are_read_as_proxies_write_them(text: str, address: str) -> None:
    assert parse_address(text) == ip_address(address)


@pytest.mark.parametrize(
    "text",
    ["", "unknown", "_hidden", "localhost", "127.1", "0x7f.0.0.1", "[127.0.0.1", "1.2.3.4:x", "😀"],
)
def test_what_is_no_address_is_unknown(text: str) -> None:
    assert parse_address(text) == UNKNOWN
    assert not UNKNOWN.is_loopback


def test_networks_know_their_addresses() -> None:
    networks = Networks("10.0.0.0/8, 192.0.2.1 ,2001:db8::/32")
    assert ip_address("10.255.0.1") in networks
    assert ip_address("192.0.2.1") in networks
    assert ip_address("2001:db8:1::1") in networks
    assert ip_address("192.0.2.2") not in networks
    assert ip_address("2001:db9::1") not in networks
    assert str(networks) == "10.0.0.0/8,192.0.2.1/32,2001:db8::/32"


def test_none_is_a_network_without_addresses_and_everything_has_the_unknown_one() -> None:
    assert UNKNOWN not in Networks("none")
    assert str(Networks("none")) == "none"
    assert UNKNOWN in Networks("0.0.0.0/0,::/0")
    assert UNKNOWN not in Networks("127.0.0.0/8,::1,10.0.0.0/8,fd00::/8")


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "10.0.0.0/33", "localhost", "10.0.0.0/8,"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Networks(text)


async def test_the_peer_is_the_client() -> None:
    assert await resolved("192.0.2.1") == "192.0.2.1 http"
    assert await resolved("::ffff:192.0.2.1") == "192.0.2.1 http"
    assert await resolved("127.0.0.1") == "127.0.0.1 http"
    assert await resolved(None) == f"{NOWHERE} http"


async def test_a_stranger_s_headers_are_not_believed() -> None:
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
async def test_a_trusted_proxy_tells_the_scheme(value: str, scheme: str) -> None:
    header = ("X-Forwarded-Proto", value)
    assert await resolved("10.0.0.1", header, trusted="10.0.0.1") == f"10.0.0.1 {scheme}"


async def test_a_local_proxy_that_is_not_trusted_makes_nobody_local() -> None:
    for name in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP", "X-Forwarded-Proto"):
        assert await resolved("127.0.0.1", (name, "127.0.0.1")) == f"{NOWHERE} http"


async def test_behind_a_trusted_local_proxy_local_clients_are_local() -> None:
    headers = [forwarded_for("::1"), ("X-Forwarded-Proto", "https")]
    assert await resolved("127.0.0.1", *headers, trusted="127.0.0.1") == "::1 https"
    assert await resolved("127.0.0.1", trusted="127.0.0.1") == "127.0.0.1 http"


@pytest.mark.parametrize(
    ("context", "client"),
    [
        ('{"http": {"sourceIp": "192.0.2.1"}}', "192.0.2.1"),
        ('{"identity": {"sourceIp": "192.0.2.1", "user": null}, "stage": "x"}', "192.0.2.1"),
        ('{"elb": {"targetGroupArn": "arn"}}', "192.0.2.9"),
        ('{"identity": {"sourceIp": null}}', NOWHERE),
        ("null", NOWHERE),
        ("not JSON", NOWHERE),
        (None, NOWHERE),
    ],
)
async def test_the_lambda_adapter_tells_the_gateway_s_peer(
    context: str | None, client: str
) -> None:
    headers = [forwarded_for("127.0.0.1, 192.0.2.9"), ("X-Forwarded-Proto", "https")]
    if context is not None:
        headers.append(("X-Amzn-Request-Context", context))
    assert await resolved("127.0.0.1", *headers, lambda_=True) == f"{client} https"


async def test_the_adapter_s_header_is_nothing_outside_of_lambda() -> None:
    header = ("X-Amzn-Request-Context", '{"http": {"sourceIp": "127.0.0.1"}}')
    assert await resolved("192.0.2.1", header) == "192.0.2.1 http"


FORGED = {"x-forwarded-for": "127.0.0.1", "x-amzn-request-context": '{"http":{"sourceIp":"::1"}}'}
HTTP_API = {
    "version": "2.0",
    "headers": FORGED,
    "requestContext": {"http": {"method": "GET", "path": "/", "sourceIp": "192.0.2.1"}},
}
REST_API = {
    "resource": "/",
    "path": "/",
    "httpMethod": "GET",
    "headers": FORGED,
    "multiValueHeaders": {name: [value] for name, value in FORGED.items()},
    "requestContext": {"identity": {"sourceIp": "192.0.2.1"}},
}
LOAD_BALANCER = {
    "path": "/",
    "httpMethod": "GET",
    "headers": {"x-forwarded-for": "127.0.0.1, 192.0.2.1", "x-forwarded-proto": "https"},
    "requestContext": {"elb": {"targetGroupArn": "arn"}},
    "queryStringParameters": {},
    "body": "",
}


@pytest.mark.parametrize("event", [HTTP_API, REST_API, LOAD_BALANCER])
@pytest.mark.parametrize("behind_lambda_adapter", [False, True])
def test_mangum_has_the_gateway_s_peer(event: dict[str, Any], behind_lambda_adapter: bool) -> None:
    asyncio.set_event_loop(loop := asyncio.new_event_loop())
    app = ClientAddressMiddleware(
        tell,
        trusted_proxies=Networks("none"),
        behind_lambda_adapter=behind_lambda_adapter,
    )
    try:
        answer = Mangum(app, lifespan="off")(event, None)  # type: ignore[arg-type]
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    assert answer["body"] == "192.0.2.1 https"
