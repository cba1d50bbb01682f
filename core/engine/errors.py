"""The error that the engine's clients get instead of an answer."""


class EngineError(Exception):
    """The request failed: `str(error)` says why, in Ollama's own words if it has any."""

    def __init__(self, text: str, status: int = 500) -> None:
        """Report `text`, with HTTP `status` unless the answer has started."""
        super().__init__(text)
        self.status = status
