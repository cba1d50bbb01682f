"""Relays a request to the same path of Ollama; an answer that breaks off never looks complete."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import httpx
import msgspec
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from core.chat.body import QUICK_BODY_BYTES, MemoryBudget, read_body
from core.chat.request import charset_of
from core.context import Caller, Record, fields_of
from core.contract.dialects import OpenAI
from core.contract.errors import (
    BadRequest,
    EndpointNotFound,
    ModelNotAllowed,
    ModelNotFound,
    OllamaError,
)
from core.contract.responses import JSONResponse
from core.ollama.api import raise_explained
from core.ollama.api import read_body as read_answer
from core.ollama.client import OllamaClient, ollama_client
from core.ollama.connection import UpstreamError
from core.ollama.failures import failed_response, failure, incomplete, not_ollama
from core.ollama.pool import Body
from core.v1.apis import Answer, Api, Usage
from core.v1.events import EventReader, error_text
from core.v1.request import RelayRequest, parse

EVENT_BYTES = 256
"""About the size of an event with one token."""

_REFUSALS = {httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.TOO_MANY_REQUESTS}
"""What Ollama, or a relay in front of it, answers instead of running the model."""
_decode = msgspec.json.Decoder(Answer).decode
_NO_SUCH_PATH = b"404 page not found"
"""What an Ollama without a path answers (recordings/v1/unknown_path)."""


class Relay:
    """A valid, authorized request, to be answered once."""

    def __init__(self, api: Api, request: Request, asked: RelayRequest) -> None:
        """Note the model in the request's record; the answer will wait for a slot."""
        self._api = api
        self._asked = asked
        self._queue = request.app.state.queue
        self._ollama: OllamaClient = ollama_client(request.app.state)
        self._caller = Caller.of(request.scope)
        self._record = Record.of(request.scope)
        self._record.model = asked.model

    async def check_model(self) -> None:
        """Raise ApiError if the caller may not use the model, or it lacks vision for the images."""
        model = self._asked.model
        if not self._caller.may_use(model):
            raise ModelNotAllowed(
                f"Your key may not use model '{model}'. GET /v1/models lists those it may"
            )
        await self._ollama.check_place(model)
        if self._asked.has_images:
            known = await self._ollama.capabilities([model])
            if "vision" not in known.get(model, ["vision"]):
                raise BadRequest(f"Model '{model}' cannot read images. Use a vision model")

    async def answer(self) -> JSONResponse:
        """Return the whole answer as Ollama gave it."""
        async with self._slot() as stream:
            body = await read_answer(stream)
        try:
            answer = _decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise not_ollama() from None
        if not self._api.is_complete(answer):
            text = error_text(body)
            raise failure(text) if text else incomplete()
        self._count(answer.usage)
        return JSONResponse(body)

    async def events(self) -> AsyncGenerator[bytes]:
        """Yield whole events as they arrive; the last one ends a complete answer.

        Raises:
            ApiError: the answer is not complete; what came before has been yielded.
        """
        reader = EventReader(self._api, wants_usage=self._asked.wants_usage)
        async with self._slot() as stream:
            try:
                while not reader.complete and (data := await stream.read()):
                    for block in reader.feed(data):
                        self._record.mark_first_token()
                        # An estimate, in case the client leaves or Ollama reports no usage:
                        # counting events takes longer.
                        self._record.tokens += 1 + len(block) // EVENT_BYTES
                        yield block
            except UpstreamError as error:
                raise_explained(error)
            if not reader.complete:
                raise incomplete()
            self._count(reader.usage)
            await stream.drain()

    def _count(self, usage: Usage | None) -> None:
        if usage:
            self._record.prompt_tokens = usage.read
            self._record.tokens = usage.written

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[Body]:
        """Wait for a slot, send the request, and yield Ollama's answer once it has begun."""
        slot = self._queue.slot(self._caller)
        try:
            async with slot:
                self._record.mark_asked()
                stream = await self._send()
                try:
                    yield stream
                finally:
                    stream.close()
        except ModelNotFound:  # its slot is free again
            raise await self._ollama.not_found(self._asked.model, self._caller.may_use) from None
        finally:
            self._record.queued_s = slot.queued_s

    async def _send(self) -> Body:
        body = self._asked.body
        self._record.may_have_run = True
        try:
            status, headers, answer = await self._ollama.relay(
                self._api.path, body, self._record.request_id
            )
        except OllamaError as error:
            unsent = httpx.ConnectError | httpx.ConnectTimeout
            self._record.may_have_run = not isinstance(error.__cause__, unsent)
            raise
        if status == httpx.codes.OK:
            return answer
        content = await read_answer(answer)
        text = error_text(content)
        if status == httpx.codes.NOT_FOUND and text and "not found" in text:
            raise ModelNotFound(self._asked.model, None)
        if status == httpx.codes.NOT_FOUND and content.strip() == _NO_SUCH_PATH:
            raise EndpointNotFound(
                f"The Ollama behind this server has no {self._api.path}. Update it, or use "
                "/v1/chat/completions"
            )
        self._record.may_have_run = status not in _REFUSALS
        raise failed_response(httpx.Response(status, headers=headers), content)


class EventStream:
    """An ASGI application that sends events; nothing is sent before the first ones arrive."""

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        self.events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer; failures are raised, and `ExchangeMiddleware` ends the stream."""
        start = {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", OpenAI.stream_type), (b"cache-control", b"no-store")],
        }
        async with aclosing(self.events) as blocks:
            async for block in blocks:
                if start:
                    await send(start)
                    start = {}
                await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body"})


async def relay(api: Api, request: Request) -> JSONResponse | EventStream:
    """Answer `request` from the same path of Ollama.

    Raises:
        ApiError: the request is invalid, or there is no answer.
    """
    settings = request.app.state.settings
    memory: MemoryBudget = request.app.state.memory
    charset = charset_of(fields_of(request.scope).get(b"content-type", b""))
    body = await read_body(request, charset, settings, memory)
    if len(body) <= QUICK_BODY_BYTES:
        asked = await parse(api, body, settings.max_predict)
    else:
        async with memory.turn:
            asked = await parse(api, body, settings.max_predict)
    del body
    if not asked.model:
        may_use = Caller.of(request.scope).may_use
        asked.model = await ollama_client(request.app.state).default.name(may_use)
    await request.app.state.recorder.let_others_catch_up()
    turn = Relay(api, request, asked)
    await turn.check_model()
    asked.seal()
    return EventStream(turn.events()) if asked.stream else await turn.answer()
