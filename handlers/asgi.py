"""The bundle: every endpoint in one application."""

from core.app import create_app
from handlers import chat, chat_stream, health, metrics, models, openapi, page, ready, stats

routes = [
    route
    for endpoint in (chat, chat_stream, health, models, openapi, ready, stats, metrics, page)
    for route in endpoint.routes
]
app = create_app(routes, instrumented=True)
