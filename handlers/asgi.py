"""The bundle: every endpoint in one application."""

from core.app import create_app
from handlers import chat, chat_stream, health, models, openapi

routes = [
    route for endpoint in (chat, chat_stream, health, models, openapi) for route in endpoint.routes
]
app = create_app(routes)
