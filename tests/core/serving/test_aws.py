import asyncio
from typing import Any

import httpx
import pytest
from mangum import Mangum
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from core.app import create_app
from core.gate.addresses import ClientAddressMiddleware
from core.serving.aws import GatewayMiddleware
from core.settings.networks import UNKNOWN, Networks
from core.settings.schema import Settings
from handlers import models
from tests.fake_ollama import FakeOllama

NOWHERE = str(UNKNOWN)


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the client's address and scheme."""
    request = Request(scope)
    assert request.client
    response = PlainTextResponse(f"{request.client.host} {request.url.scheme}")
    await response(scope, receive, send)


app = GatewayMiddleware(ClientAddressMiddleware(tell, trusted_proxies=Networks("none")))


async def adapted(*headers: tuple[str, str]) -> str:
    transport = httpx.ASGITransport(app, client=("127.0.0.1", 1234))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        return (await http.get("/", headers=headers)).text


def forwarded_for(value: str) -> tuple[str, str]:
    return ("X-Forwarded-For", value)


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
async def test_the_lambda_adapter_reports_the_gateways_peer(
    context: str | None, client: str
) -> None:
    headers = [forwarded_for("127.0.0.1, 192.0.2.9"), ("X-Forwarded-Proto", "https")]
    if context is not None:
        headers.append(("X-Amzn-Request-Context", context))
    assert await adapted(*headers) == f"{client} https"


async def test_the_adapters_header_is_ignored_outside_lambda(fake: FakeOllama) -> None:
    header = {"X-Amzn-Request-Context": '{"http": {"sourceIp": "127.0.0.1"}}'}
    app = create_app(models.routes, Settings(ollama_base_url=fake.url))
    transport = httpx.ASGITransport(app, client=("192.0.2.1", 1234))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        assert (await http.get("/api/models", headers=header)).status_code == 401


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
def test_mangum_reports_the_gateways_peer(event: dict[str, Any]) -> None:
    asyncio.set_event_loop(loop := asyncio.new_event_loop())
    try:
        answer = Mangum(app, lifespan="off")(event, None)  # type: ignore[arg-type]
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    assert answer["body"] == "192.0.2.1 https"
