"""What the endpoints share; `core/README.md` is the map, `core.app.create_app` the way in."""

__version__ = "0.1.0"
