"""The code that endpoints share; `core/README.md` is its map, `core.app.create_app` its entry."""

__version__ = "0.1.0"
