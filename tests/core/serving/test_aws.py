import asyncio
import json
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import httpx
import pytest
from mangum.types import ASGI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from core.app import create_app
from core.context import Caller
from core.gate.addresses import ClientAddressMiddleware
from core.keys.editing import create
from core.serving.aws import MAX_ANSWER_BYTES, GatewayMiddleware, create_handler
from core.settings.networks import UNKNOWN, Networks
from core.settings.schema import Settings
from handlers import models
from tests.fake_ollama import FakeOllama

NOWHERE = str(UNKNOWN)


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the client's address and scheme."""
    request = Request(scope)
    assert request.client
    text = f"{request.client.host} {request.url.scheme}"
    response = PlainTextResponse(text, media_type="application/json")
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


def invoke(app: ASGI, event: dict[str, Any]) -> dict[str, Any]:
    asyncio.set_event_loop(loop := asyncio.new_event_loop())
    try:
        return create_handler(app)(event, None)  # type: ignore[arg-type]
    finally:
        asyncio.set_event_loop(None)
        loop.close()


@pytest.mark.parametrize("event", [HTTP_API, REST_API, LOAD_BALANCER])
def test_mangum_reports_the_gateways_peer(event: dict[str, Any]) -> None:
    assert invoke(app, event)["body"] == "192.0.2.1 https"


@pytest.mark.parametrize("event", [HTTP_API, REST_API, LOAD_BALANCER])
@pytest.mark.parametrize(
    "header",
    [{"host": "[2001:db8::1]:8443"}, {"host": "api.example.com:"}, {"x-forwarded-port": "443, 80"}],
)
def test_any_host_and_ports_are_answered(event: dict[str, Any], header: dict[str, str]) -> None:
    event = {**event, "headers": {**event["headers"], **header}}
    assert invoke(app, event)["body"] == "192.0.2.1 https"


@pytest.mark.parametrize(
    ("base_path", "path", "inside"),
    [
        ("ai", "/ai/api/chat", "/api/chat"),
        ("/ai/", "/ai/api/chat", "/api/chat"),
        ("ai", "/api/chat", "/api/chat"),
        ("ai", "/aid/api/chat", "/aid/api/chat"),
        ("api", "/api/api/chat", "/api/chat"),
        ("company/ai", "/company/ai/api/chat", "/api/chat"),
        ("", "/api/chat", "/api/chat"),
    ],
)
async def test_a_base_path_is_left_out_once(base_path: str, path: str, inside: str) -> None:
    async def tell_path(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(scope["path"])(scope, receive, send)

    transport = httpx.ASGITransport(GatewayMiddleware(tell_path, base_path=base_path))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        assert (await http.get(path)).text == inside


class Sized:
    """An application that answers with this many quotes, each of which JSON writes as two bytes."""

    def __init__(self, size: int) -> None:
        self.size = size

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {"content-type": "application/json", "x-request-id": "abc"}
        await PlainTextResponse('"' * self.size, headers=headers)(scope, receive, send)


@pytest.mark.parametrize("event", [HTTP_API, REST_API, LOAD_BALANCER])
def test_an_answer_that_lambda_would_reject_is_an_error(event: dict[str, Any]) -> None:
    largest = MAX_ANSWER_BYTES // 2 - 1024
    assert invoke(Sized(largest), event)["statusCode"] == 200
    answer = invoke(Sized(largest + 1024), event)
    assert answer["statusCode"] == 500
    assert json.loads(answer["body"]) == {"success": False, "error": ANY}
    headers = answer.get("headers") or {
        name: values[0] for name, values in answer["multiValueHeaders"].items()
    }
    assert headers["content-type"] == "application/json; charset=utf-8"
    assert headers["content-length"] == str(len(answer["body"]))
    assert headers["x-request-id"] == "abc"
    assert headers["x-should-retry"] == "false"


def answering(path: str, body: bytes, media_type: str) -> ASGI:
    """Return a function's application that answers `path` with `body`."""

    async def answer(request: Request) -> Response:
        return Response(body, media_type=media_type)

    settings = Settings(
        aws_lambda_function_name="f",
        anonymous_clients=Networks("0.0.0.0/0"),
        api_gateway_base_path="ai",
    )
    return create_app([Route(path, answer, methods=["POST"])], settings)


def http_api(path: str) -> dict[str, Any]:
    http = {"method": "POST", "path": path, "sourceIp": "192.0.2.1"}
    return {"version": "2.0", "headers": {}, "requestContext": {"http": http, "stage": "prod"}}


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/api/chat", {"success": False, "error": ANY}),
        (
            "/v1/embeddings",
            {"error": {"message": ANY, "type": "api_error", "param": None, "code": None}},
        ),
        (
            "/v1/messages",
            {
                "type": "error",
                "error": {"type": "api_error", "message": ANY},
                "request_id": ANY,
            },
        ),
    ],
)
def test_the_error_is_in_the_shape_of_its_path(path: str, error: dict[str, Any]) -> None:
    app = answering(path, b"x" * MAX_ANSWER_BYTES, "application/json")
    answer = invoke(app, http_api(f"/prod/ai{path}"))
    assert (answer["statusCode"], json.loads(answer["body"])) == (500, error)
    assert answer["headers"]["x-should-retry"] == "false"
    if "request_id" in error:
        assert json.loads(answer["body"])["request_id"] == answer["headers"]["x-request-id"]


def test_events_are_text() -> None:
    app = answering("/v1/completions", "data: 안녕\n\n".encode(), "text/event-stream")
    answer = invoke(app, http_api("/v1/completions"))
    assert (answer["body"], answer["isBase64Encoded"]) == ("data: 안녕\n\n", False)


@pytest.mark.parametrize("path", ["/api/chat", "/v1/completions"])
def test_invalid_settings_are_an_error_in_the_shape_of_its_path(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATE_LIMIT", "often")
    answer = invoke(create_app([]), http_api(path))
    error = json.loads(answer["body"])["error"]
    assert answer["statusCode"] == 500
    assert (error if path == "/api/chat" else error["message"]).startswith("This server's settings")


@pytest.mark.parametrize("way", ["Mangum", "adapter"])
@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer {own}", 200),
        ("Bearer owa_00000000_wrong", 401),
        ("Basic dTpw", 200),  # the gateway's key is the caller's, if it is a key of ours, too
        (None, 200),
    ],
)
async def test_callers_of_a_rest_api_may_have_keys_of_their_own_beside_the_gateway_s(
    fake: FakeOllama, tmp_path: Path, way: str, authorization: str | None, status: int
) -> None:
    keys = tmp_path / "keys.json"
    gateway, own = (
        create(keys, "gateway", alphanumeric=True),
        create(keys, "own", alphanumeric=True),
    )
    seen: list[str] = []

    async def who(request: Request) -> PlainTextResponse:
        seen.append(Caller.of(request.scope).name)
        return PlainTextResponse("")

    settings = Settings(
        ollama_base_url=fake.url, api_keys_file=str(keys), aws_lambda_function_name="models"
    )
    app = create_app([Route("/api/models", who)], settings)
    headers = {"host": "x.example.com", "x-api-key": gateway}
    if authorization:
        headers["authorization"] = authorization.format(own=own)
    identity = {"sourceIp": "192.0.2.1", "apiKey": gateway}
    if way == "Mangum":
        event = {**REST_API, "path": "/api/models", "requestContext": {"identity": identity}}
        event |= {"headers": headers, "multiValueHeaders": {k: [v] for k, v in headers.items()}}
        answered = (await asyncio.to_thread(invoke, app, event))["statusCode"]
    else:
        headers["x-amzn-request-context"] = json.dumps({"identity": identity})
        transport = httpx.ASGITransport(app, client=("127.0.0.1", 1234))
        async with httpx.AsyncClient(transport=transport, base_url="https://x.example.com") as http:
            answered = (await http.get("/api/models", headers=headers)).status_code
    assert answered == status
    expected = "own" if authorization and "own" in authorization else "gateway"
    assert seen == ([expected] if status == 200 else [])
