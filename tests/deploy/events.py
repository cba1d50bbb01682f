"""The events with which AWS' gateways forward a request."""

import base64
from collections.abc import Callable
from typing import Any

import httpx

from tests.gateway import http_api_event

Event = dict[str, Any]
CLIENT = "192.0.2.7"


def rest_api(request: httpx.Request) -> Event:
    """Return the event of API Gateway's REST API (payload format 1.0)."""
    return {
        "resource": request.url.path,
        "path": request.url.path,
        "httpMethod": request.method,
        "headers": dict(request.headers),
        "multiValueHeaders": {name: request.headers.get_list(name) for name in request.headers},
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {
            "path": f"/dev{request.url.path}",
            "stage": "dev",
            "httpMethod": request.method,
            "identity": {"sourceIp": CLIENT, "userAgent": None},
        },
        "body": request.content.decode() or None,
        "isBase64Encoded": False,
    }


def http_api(request: httpx.Request, stage: str = "$default") -> Event:
    """Return the event of API Gateway's HTTP API (payload format 2.0)."""
    event = http_api_event(request, stage)
    event["requestContext"]["http"]["sourceIp"] = CLIENT
    return {**event, "body": request.content.decode(), "isBase64Encoded": False}


def http_api_with_stage(request: httpx.Request) -> Event:
    return http_api(request, "prod")


def function_url(request: httpx.Request) -> Event:
    """Return the event of a function's own URL, which is that of an HTTP API."""
    event = http_api(request)
    event["requestContext"]["domainName"] = "abc.lambda-url.us-east-1.on.aws"
    return event


def alb(request: httpx.Request) -> Event:
    """Return the event of an Application Load Balancer."""
    return {
        "requestContext": {
            "elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/x/y"}
        },
        "httpMethod": request.method,
        "path": request.url.path,
        "queryStringParameters": {},
        "headers": {
            **request.headers,
            "x-forwarded-for": CLIENT,
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https",
        },
        "body": request.content.decode(),
        "isBase64Encoded": False,
    }


def in_base64(event: Event) -> Event:
    """Return `event` as it arrives if the body's type counts as binary."""
    body = base64.b64encode((event["body"] or "").encode()).decode()
    return {**event, "body": body, "isBase64Encoded": True}


GATEWAYS: list[Callable[[httpx.Request], Event]] = [
    rest_api,
    http_api,
    http_api_with_stage,
    function_url,
    alb,
]
