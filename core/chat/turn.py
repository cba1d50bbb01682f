"""One turn of a conversation: everything between a chat endpoint and Ollama."""

import asyncio
from collections.abc import AsyncGenerator

from msgspec import UNSET
from starlette.datastructures import State
from starlette.requests import Request

from core.chat.body import SMALL_BODY_BYTES
from core.chat.conversation import context_of
from core.chat.request import PendingChat, read_chat_request
from core.chat.stream import StreamResponse, preferred_heartbeat_s
from core.context import Caller, Record, fields_of
from core.contract.errors import ModelNotAllowed, ModelNotFound
from core.contract.schemas import ChatAnswer, ChatRequest, StreamEnd
from core.ollama.client import ollama_client
from core.ollama.wire import Lines


class Turn:
    """A valid, authorized request, to be answered once: whole or as a stream."""

    __slots__ = ("_app", "_caller", "_pending", "_preferred_s", "_record", "wants_stream")

    def __init__(self, request: Request, app: State, pending: PendingChat) -> None:
        """Answer `pending` with the parts of `app`."""
        self.wants_stream = pending.stream
        self._pending = pending
        self._app = app
        has_preferences = b"prefer" in fields_of(request.scope)
        self._preferred_s = preferred_heartbeat_s(request.headers) if has_preferences else 0
        self._record = Record.of(request.scope)
        self._caller = Caller.of(request.scope)

    @classmethod
    async def of(cls, request: Request) -> "Turn":
        """Read and authorize the turn in `request`, and note its model in the record.

        Raises:
            ApiError: the request is invalid, or its client may not use the model.
        """
        app: State = request.app.state
        turn = cls(request, app, await read_chat_request(request, app.settings, app.memory))
        await app.recorder.let_others_catch_up()
        may_use = turn._caller.may_use
        model = turn._pending.model
        if model is UNSET:
            model = await ollama_client(app).default.name(may_use)
        turn._record.model = model
        if not may_use(model):
            raise ModelNotAllowed(
                f"Your key may not use model '{model}'. GET /api/models lists those it may"
            )
        return turn

    async def answer(self) -> ChatAnswer:
        """Return the whole answer."""
        slot = self._app.queue.slot(self._caller)
        try:
            async with slot:
                chat = await self._pending.take()
                self._record.mark_asked()
                answer = await ollama_client(self._app).chat(
                    chat, self._record.model, self._record.request_id
                )
        except ModelNotFound:
            raise await self._not_found() from None
        finally:
            self._record.queued_s = slot.queued_s
        await self._complete(answer, chat, answer.response)
        return answer

    def stream(self) -> StreamResponse:
        """Return the answer as a stream that has not started yet."""
        return StreamResponse(
            self._lines(),
            heartbeat_s=self._app.settings.stream_heartbeat_s,
            preferred_s=self._preferred_s,
        )

    async def _lines(self) -> AsyncGenerator[Lines]:
        slot = self._app.queue.slot(self._caller)
        try:
            async with slot:
                chat = await self._pending.take()
                self._record.mark_asked()
                stream = await ollama_client(self._app).stream(
                    chat, self._record.model, self._record.request_id
                )
                said = bytearray()  # a list of strings would take ten times the memory
                try:
                    while batches := await stream.read():
                        for lines in batches:
                            self._record.mark_first_token()
                            self._record.tokens += len(lines.pieces)  # if the client leaves
                            said += "".join(lines.pieces).encode()
                            if lines.end:
                                await self._complete(lines.end, chat, said.decode())
                            yield lines
                finally:
                    stream.close()
        except ModelNotFound:
            raise await self._not_found() from None
        finally:
            self._record.queued_s = slot.queued_s

    async def _complete(self, end: ChatAnswer | StreamEnd, chat: ChatRequest, text: str) -> None:
        """Add to `end` the conversation, `text` being the model's part; count its tokens."""
        assert chat.messages is not UNSET
        if self._record.body_bytes > SMALL_BODY_BYTES:  # compressing it takes a while
            end.context = await asyncio.to_thread(context_of, chat.messages, text)
        else:
            end.context = context_of(chat.messages, text)
        prompt = end.prompt_eval_count
        self._record.prompt_tokens = 0 if prompt is UNSET else prompt
        self._record.tokens = 0 if end.eval_count is UNSET else end.eval_count

    async def _not_found(self) -> ModelNotFound:
        """Return the error that names the models the client may use; its slot is free again."""
        return await ollama_client(self._app).not_found(self._record.model, self._caller.may_use)
