"""The OpenAPI 3.1 description of the API, derived from the schemas.

It leaves out itself and the chat page, which no generated client calls.
"""

from typing import Any

import msgspec
from msgspec import UNSET

from core.contract import openapi_v1, reports, schemas
from core.contract.schemas import API_VERSION

_ANSWERS = (
    schemas.ChatAnswer,
    schemas.StreamToken,
    schemas.Heartbeat,
    schemas.StreamEnd,
    schemas.StreamError,
    schemas.Error,
    reports.Health,
    reports.Models,
    reports.StatsAnswer,
    reports.UsageAnswer,
)
_ERRORS = {
    400: "The request is malformed: a missing field, a wrong type, or invalid JSON",
    401: "Credentials are missing or wrong",
    403: "The client's address or the model is not allowed",
    404: "The model is not installed",
    408: "The body has stopped arriving",
    413: "The body is too large",
    415: "The body is not declared as application/json",
    429: "Too many requests; Retry-After says in how many seconds to try again",
    500: "Ollama is unreachable, or Ollama or this server has failed",
    503: "The queue or the memory here, or Ollama's queue, is full; Retry-After says in how many "
    "seconds to try again",
    504: "No complete answer in time",
}
_PREFER = {
    "name": "Prefer",
    "in": "header",
    "description": "`heartbeat=N` (RFC 7240), with N from 1 to 60: a stream then sends a Heartbeat "
    "after N seconds of silence, and an error in it has a `status`",
    "schema": {"type": "string", "examples": ["heartbeat=15"]},
}
_PREFERENCE_APPLIED = {
    "description": "The `heartbeat=N` that the stream applies; absent if there is none",
    "schema": {"type": "string"},
}
_GATE = (400, 401, 403, 429, 500, 503)
"""The errors that any request may get before it reaches its endpoint."""


def openapi_document() -> dict[str, Any]:
    """Return the document as a JSON object."""
    types = (schemas.ChatRequest, *_ANSWERS)
    references, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    ref = dict(zip((type_.__name__ for type_ in types), references, strict=True))
    for type_ in _ANSWERS:  # a field with a default is always sent
        fields = msgspec.structs.fields(type_)
        components[type_.__name__]["required"] = [f.name for f in fields if f.default is not UNSET]
    kinds = ("StreamToken", "Heartbeat", "StreamEnd", "StreamError")
    line = {"anyOf": [ref[kind] for kind in kinds]}
    stream = {
        "application/x-ndjson": {
            "schema": {"type": "string", "description": "JSON objects, one per line"},
            "itemSchema": line,
        }
    }
    answer = {"application/json": {"schema": ref["ChatAnswer"]}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Ollama Web API",
            "version": API_VERSION,
            "description": "A plain REST API in front of an Ollama machine.",
        },
        "paths": {
            "/api/health": _get(
                "health", "Whether the server and Ollama are up", ref["Health"], {}
            ),
            "/api/models": _get(
                "models",
                "The installed models",
                ref["Models"],
                _errors(ref["Error"], *_GATE, 504),
                {"name": "capabilities", "in": "query", "schema": {"type": "boolean"}},
            ),
            "/api/ready": _get(
                "ready",
                "Whether Ollama answers, for load balancers",
                ref["Health"],
                _errors(ref["Error"], *_GATE, 503),
            ),
            "/api/stats": _get(
                "stats",
                "Response times by model, and the queue",
                ref["StatsAnswer"],
                _errors(ref["Error"], *_GATE),
            ),
            "/api/usage": _get(
                "usage",
                "The caller's own usage, by model and day",
                ref["UsageAnswer"],
                _errors(ref["Error"], *_GATE),
                {"name": "since", "in": "query", "schema": {"type": "string", "format": "date"}},
            ),
            "/metrics": _get(
                "metrics",
                "Metrics in Prometheus' text format",
                {"type": "string"},
                _errors(ref["Error"], *_GATE),
                media_type="text/plain",
            ),
            "/api/chat": _chat("chat", "One whole answer", ref, {**answer, **stream}),
            "/api/chat/stream": _chat(
                "chat_stream", "The answer line by line, as it is written", ref, stream
            ),
            **openapi_v1.paths(_ERRORS, _GATE),
        },
        "components": {
            "schemas": {**components, **openapi_v1.SCHEMAS},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "API key or JWT"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        "security": [{}, {"bearer": []}, {"apiKey": []}],
    }


def _get(
    name: str,
    summary: str,
    schema: dict[str, Any],
    errors: dict[str, Any],
    *parameters: dict[str, Any],
    media_type: str = "application/json",
) -> dict[str, Any]:
    ok = {"description": summary, "content": {media_type: {"schema": schema}}}
    responses = {"200": ok, **errors}
    return {
        "get": {
            "operationId": name,
            "summary": summary,
            "parameters": list(parameters),
            "responses": responses,
        }
    }


def _chat(name: str, summary: str, ref: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    body = {"required": True, "content": {"application/json": {"schema": ref["ChatRequest"]}}}
    headers = {"Preference-Applied": _PREFERENCE_APPLIED}
    ok = {"description": summary, "headers": headers, "content": content}
    return {
        "post": {
            "operationId": name,
            "summary": summary,
            "parameters": [_PREFER],
            "requestBody": body,
            "responses": {"200": ok, **_errors(ref["Error"], *_ERRORS)},
        }
    }


def _errors(schema: dict[str, Any], *statuses: int) -> dict[str, Any]:
    content = {"application/json": {"schema": schema}}
    return {str(s): {"description": _ERRORS[s], "content": content} for s in statuses}
