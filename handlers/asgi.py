"""The bundle: every endpoint in one application."""

from core.app import create_app
from handlers import (
    chat,
    chat_stream,
    health,
    metrics,
    models,
    openapi,
    page,
    ready,
    stats,
    usage,
    v1_chat_completions,
    v1_completions,
    v1_embeddings,
    v1_messages,
    v1_models,
    v1_responses,
)

_API = (chat, chat_stream, health, models, openapi, ready, stats, usage, metrics)
_V1 = (
    *(v1_chat_completions, v1_completions, v1_embeddings, v1_responses, v1_messages),
    v1_models,
)
routes = [route for endpoint in (*_API, *_V1, page) for route in endpoint.routes]
app = create_app(routes, instrumented=True)
