"""Checks the server against its own OpenAPI document, with requests generated from it."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.datastructures import Headers
from starlette.routing import Route

from core.chat.stream import preferred_heartbeat_s
from core.contract.openapi import openapi_document
from core.contract.responses import PREFERENCE_APPLIED
from handlers import asgi, openapi, page
from tests.processes import bundle, fake_ollama

schema = schemathesis.openapi.from_dict(openapi_document())


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with (
        fake_ollama("--pace", "0") as ollama,
        bundle(ollama, DEFAULT_MODEL="smollm2:135m", RATE_LIMIT="off") as url,
    ):
        yield url


def test_the_document_is_served_unchanged(url: str) -> None:
    assert requests.get(f"{url}/api/openapi.json", timeout=5).json() == openapi_document()


def test_the_document_describes_every_endpoint_of_the_bundle() -> None:
    left_out = (*openapi.routes, *page.routes)
    served = [route for route in asgi.routes if isinstance(route, Route) and route not in left_out]
    assert set(openapi_document()["paths"]) == {route.path_format for route in served}


def test_the_document_describes_every_error_of_every_endpoint() -> None:
    for path, methods in openapi_document()["paths"].items():
        name = "OpenAIError" if path.startswith("/v1/") else "Error"
        name = "AnthropicError" if path == "/v1/messages" else name
        for operation in methods.values():
            for status, response in operation["responses"].items():
                if status != "200":
                    schema = response["content"]["application/json"]["schema"]
                    assert schema["$ref"] == f"#/components/schemas/{name}"


@pytest.mark.parametrize("path", ["/api/chat", "/api/chat/stream"])
def test_the_document_describes_heartbeats(path: str) -> None:
    document = openapi_document()
    operation = document["paths"][path]["post"]
    (prefer,) = operation["parameters"]
    (example,) = prefer["schema"]["examples"]
    assert preferred_heartbeat_s(Headers({prefer["name"]: example})) == 15
    answer = operation["responses"]["200"]
    assert PREFERENCE_APPLIED.decode() in {name.lower() for name in answer["headers"]}
    items = answer["content"]["application/x-ndjson"]["itemSchema"]["anyOf"]
    assert {"$ref": "#/components/schemas/Heartbeat"} in items
    required = document["components"]["schemas"]["Heartbeat"]["required"]
    assert set(required) == {"response", "done", "heartbeat"}


@schema.parametrize()
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_conforms_to_the_document(case: schemathesis.Case[Any], url: str) -> None:
    answer = case.call(base_url=url)
    assert answer.status_code < 500
    case.validate_response(
        answer,
        checks=[content_type_conformance, response_schema_conformance, status_code_conformance],
    )
    if answer.headers["content-type"] == ["application/x-ndjson; charset=utf-8"]:
        components = {"components": openapi_document()["components"]}
        line_schema = openapi_document()["paths"]["/api/chat/stream"]["post"]["responses"]["200"]
        item = line_schema["content"]["application/x-ndjson"]["itemSchema"]
        for line in answer.content.split(b"\n")[:-1]:
            jsonschema_rs.validate({**item, **components}, json.loads(line))
