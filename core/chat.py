"""One turn of a conversation: what stands between a chat endpoint and Ollama."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec import UNSET
from starlette.requests import Request

from core.auth import model_allowed
from core.client import Client
from core.errors import ModelNotAllowed, ModelNotFound
from core.generate import Lines
from core.ollama import ollama_client
from core.record import Record
from core.requests import read_chat_request
from core.schemas import ChatAnswer, ChatRequest, StreamEnd
from core.streaming import StreamResponse


class Turn:
    """A valid request of a client that may make it; it is answered once, whole or as a stream."""

    def __init__(self, request: Request, chat: ChatRequest) -> None:
        """Wait for a slot when answered, and note in the record what becomes of it."""
        self.chat = chat
        self._app = request.app.state
        self._client: Client = request.state.client
        self._record: Record = request.state.record

    @classmethod
    async def of(cls, request: Request) -> "Turn":
        """Read the turn that `request` asks for.

        Raises:
            ApiError: the request is not valid, or its client may not use the model.
        """
        settings = request.app.state.settings
        chat = await read_chat_request(request, settings)
        model = chat.model = settings.default_model if chat.model is UNSET else chat.model
        turn = cls(request, chat)
        turn._record.model = model
        if not model_allowed(turn._client, model):
            raise ModelNotAllowed(
                f"Your key may not use model '{model}'. GET /api/models lists those it may"
            )
        return turn

    async def answer(self) -> ChatAnswer:
        """Return the whole answer."""
        slot = self._app.queue.slot(self._client)
        try:
            async with slot:
                answer = await ollama_client(self._app).chat(self.chat, self._record.request_id)
        except ModelNotFound as error:
            raise self._without_others_models(error) from None
        finally:
            self._record.queued_s = slot.queued_s
        self._count(answer)
        return answer

    def stream(self) -> StreamResponse:
        """Return the answer as a stream that has not begun yet."""
        return StreamResponse(self._lines(), heartbeat_s=self._app.settings.stream_heartbeat_s)

    async def _lines(self) -> AsyncGenerator[Lines]:
        slot = self._app.queue.slot(self._client)
        try:
            async with slot:
                stream = ollama_client(self._app).stream(self.chat, self._record.request_id)
                async with aclosing(stream) as batches:
                    async for lines in batches:
                        self._record.mark_first_token()
                        if isinstance(lines[-1], StreamEnd):
                            self._count(lines[-1])
                        yield lines
        except ModelNotFound as error:
            raise self._without_others_models(error) from None
        finally:
            self._record.queued_s = slot.queued_s

    def _count(self, end: ChatAnswer | StreamEnd) -> None:
        self._record.tokens = 0 if end.eval_count is UNSET else end.eval_count

    def _without_others_models(self, error: ModelNotFound) -> ModelNotFound:
        """Leave out of the text the models that the client may not see."""
        installed = error.installed
        if installed is not None:
            installed = [name for name in installed if model_allowed(self._client, name)]
        return ModelNotFound(error.model, installed)
