"""What the engine's clients hear when there is no answer."""


class EngineError(Exception):
    """There is no answer: `str(error)` says why, in Ollama's words where it has some."""

    def __init__(self, text: str, status: int = 500) -> None:
        """Say `text`, with HTTP `status` unless the answer has begun."""
        super().__init__(text)
        self.status = status
