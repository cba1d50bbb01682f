"""The compatible paths in the OpenAPI document.

Their requests and answers are Ollama's own, and change with it, so they are free-form here.
"""

from typing import Any

_TEXT, _NOTHING = {"type": "string"}, {"type": "null"}
_MODEL = {
    "type": "object",
    "properties": {
        "id": _TEXT,
        "object": {"const": "model"},
        "created": {"type": "integer", "description": "Seconds since 1970"},
        "owned_by": _TEXT,
    },
    "required": ["id", "object", "created", "owned_by"],
}
SCHEMAS: dict[str, Any] = {
    "OpenAIModel": _MODEL,
    "OpenAIModels": {
        "type": "object",
        "properties": {
            "object": {"const": "list"},
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/OpenAIModel"}},
        },
        "required": ["object", "data"],
    },
    "OpenAIError": {
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "message": _TEXT,
                    "type": _TEXT,
                    "param": _NOTHING,
                    "code": {"anyOf": [_TEXT, _NOTHING]},
                },
                "required": ["message", "type", "param", "code"],
            },
        },
        "required": ["error"],
    },
    "AnthropicError": {
        "type": "object",
        "properties": {
            "type": {"const": "error"},
            "error": {
                "type": "object",
                "properties": {"type": _TEXT, "message": _TEXT},
                "required": ["type", "message"],
            },
            "request_id": _TEXT,
        },
        "required": ["type", "error", "request_id"],
    },
}
_POSTS = {
    "/v1/chat/completions": ("chat_completions", "OpenAI's chat completions"),
    "/v1/completions": ("completions", "OpenAI's older completions"),
    "/v1/embeddings": ("embeddings", "OpenAI's embeddings"),
    "/v1/responses": ("responses", "OpenAI's responses"),
    "/v1/messages": ("messages", "Anthropic's messages"),
}
_EVENTS = {"type": "string", "description": "Server-sent events; a broken stream ends in an error"}
_BODY = {
    "type": "object",
    "additionalProperties": True,
    "description": "As Ollama accepts it. `model` is optional; the answer is limited to "
    "MAX_PREDICT tokens; `keep_alive` and `options` are ignored; `n` above 1, image URLs, "
    "documents, and images for a model without vision are refused",
}


def paths(errors: dict[int, str], of_any_request: tuple[int, ...]) -> dict[str, Any]:
    """Return the operations; `errors` describes statuses, `of_any_request` applies to each GET."""
    found: dict[str, Any] = {
        path: {"post": _post(path, *named, errors)} for path, named in _POSTS.items()
    }
    gets = {status: errors[status] for status in (*of_any_request, 504)}
    models, one = "The models that the caller may use", "One of them"
    missing = {**gets, 404: errors[404]}
    parameter = {"name": "model", "in": "path", "required": True, "schema": _TEXT}
    found["/v1/models"] = {"get": _get("openai_models", models, "OpenAIModels", gets)}
    found["/v1/models/{model}"] = {
        "get": {**_get("openai_model", one, "OpenAIModel", missing), "parameters": [parameter]}
    }
    return found


def _post(path: str, name: str, summary: str, errors: dict[int, str]) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if name != "embeddings":
        content["text/event-stream"] = {"schema": _EVENTS}
    error = "AnthropicError" if path == "/v1/messages" else "OpenAIError"
    body = {"required": True, "content": {"application/json": {"schema": _BODY}}}
    return {
        "operationId": f"openai_{name}",
        "summary": summary,
        "requestBody": body,
        "responses": {"200": {"description": summary, "content": content}, **_all(errors, error)},
    }


def _get(name: str, summary: str, schema: str, errors: dict[int, str]) -> dict[str, Any]:
    ok = {"description": summary, "content": _json(schema)}
    return {
        "operationId": name,
        "summary": summary,
        "responses": {"200": ok, **_all(errors, "OpenAIError")},
    }


def _all(errors: dict[int, str], schema: str) -> dict[str, Any]:
    return {
        str(status): {"description": text, "content": _json(schema)}
        for status, text in errors.items()
    }


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
