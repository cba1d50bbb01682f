"""The client of the Ollama server: schema objects in and out, and every failure an ApiError."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakValueDictionary

import httpx
import msgspec
from starlette.datastructures import State

from core import ollama_api
from core.errors import ApiError, BadRequest, ModelNotAllowed, ModelNotFound
from core.generate import AnswerReader, GenerateRequest, Lines, read_answer, read_streamed_answer
from core.ollama_api import OllamaAPI, drain, network_errors, parse, read
from core.ollama_errors import failed_response, says_model_is_missing
from core.schemas import ChatAnswer, ChatRequest
from core.settings import Settings
from core.transport import HTTPTransport

KNOWN_FOR_S = 600
"""How long what Ollama tells of a model is believed: it may be pulled anew under its name."""
UNKNOWN_FOR_S = 10
"""How long it is not asked again of which it does not tell."""
MAX_LOOKUPS = 8
"""How many models are asked about at once for one request."""


class _Tag(msgspec.Struct):
    name: str
    remote_model: str = ""  # since 0.12, of a model in the cloud, whatever its name is


class _Tags(msgspec.Struct):
    models: list[_Tag]


class _Show(msgspec.Struct):
    model_info: dict[str, Any] = {}
    capabilities: list[str] | None = None  # since 0.6.4
    remote_model: str = ""


class _Model(msgspec.Struct):
    """What is kept of a model's _Show, which is hundreds of kilobytes."""

    vocabulary_size: int | None
    capabilities: list[str] | None
    is_cloud: bool


class _Lookup:
    """A question about a model, and who waits for its answer."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.error: ApiError | None = None


class OllamaClient:
    """Calls one Ollama server, for any number of requests at once."""

    def __init__(
        self,
        settings: Settings,
        transport: httpx.AsyncBaseTransport,
        headers: Sequence[tuple[bytes, bytes]],
    ) -> None:
        """Call OLLAMA_BASE_URL through `transport`, with `headers` on every request."""
        self._settings = settings
        self._api = OllamaAPI(settings.ollama_base_url, transport, headers)
        # Relays on the internet end an answer of which nothing comes for long (Cloudflare: 100 s).
        self._is_far = settings.ollama_base_url.startswith("https:")
        self._known: dict[str, tuple[_Model | None, float]] = {}  # each with its end
        self._lookups = WeakValueDictionary[str, _Lookup]()

    async def models(self) -> list[str]:
        """Return the names of the installed models, in Ollama's order.

        Raises:
            OllamaError: Ollama cannot be reached, or fails.
            RequestTimeout: it does not answer.
        """
        tags = parse(*await self._api.ask("GET", "/api/tags"), _Tags)
        return [
            tag.name
            for tag in tags.models
            if self._settings.allow_cloud_models or not (tag.remote_model or _is_cloud(tag.name))
        ]

    async def capabilities(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Return what each model of `names` can do, in Ollama's words; no model is loaded.

        Those of which Ollama does not tell, or not in time, are left out.
        """
        few_at_once = asyncio.Semaphore(MAX_LOOKUPS)
        deadline = asyncio.get_running_loop().time() + ollama_api.METADATA_TIMEOUT_S

        async def of(name: str) -> list[str] | None:
            with suppress(ApiError, TimeoutError):
                async with asyncio.timeout_at(deadline), few_at_once:
                    model = await self._model(name)
                return model.capabilities if model else None
            return None

        told = zip(names, await asyncio.gather(*map(of, names)), strict=True)
        return {name: capabilities for name, capabilities in told if capabilities is not None}

    async def chat(self, chat: ChatRequest, request_id: str = "") -> ChatAnswer:
        """Return the whole answer to `chat`; `request_id` is for logs on the way.

        Raises:
            ApiError: there is none; whatever went wrong is its class and text.
        """
        model, stream = await self._generate(chat, request_id, stream=self._is_far)
        read_body = read_streamed_answer if self._is_far else read_answer
        return read_body(await read(stream), chat, model)

    async def stream(self, chat: ChatRequest, request_id: str = "") -> AsyncGenerator[Lines]:
        """Yield the lines of the answer to `chat`, as many at once as came at once.

        The last line of all is a `StreamEnd`. Closing this generator closes the connection, which
        stops the model.

        Raises:
            ApiError: as `chat` does; what came before has been yielded.
        """
        reader = AnswerReader(thinking=bool(chat.think))
        _, stream = await self._generate(chat, request_id, stream=True)
        try:
            with network_errors:
                async for data in stream:
                    for lines in reader.feed(data):
                        yield lines
                    if reader.finished:
                        break
            for lines in reader.end():
                yield lines
            await drain(stream)
        finally:
            await stream.aclose()

    async def _generate(
        self, chat: ChatRequest, request_id: str, *, stream: bool
    ) -> tuple[str, httpx.AsyncByteStream]:
        """Return the model's name, and its answer when that has begun."""
        request = GenerateRequest.from_chat(chat, self._settings, stream=stream)
        if not self._settings.allow_cloud_models:
            await self._check_place(request.model)
        if chat.context:
            await self._check_vocabulary(request.model, chat.context)
        response = await self._api.send("POST", "/api/generate", request, request_id)
        if response.status_code != httpx.codes.OK:
            body = await read(response.stream)
            if says_model_is_missing(response, body):
                raise ModelNotFound(request.model, await self._installed())
            raise failed_response(response, body)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        return request.model, response.stream

    async def _check_place(self, model: str) -> None:
        """Refuse a model in the cloud; a copy of one tells by no name that it is there."""
        if _is_cloud(model) or ((known := await self._model(model)) and known.is_cloud):
            raise ModelNotAllowed(
                f"Model '{model}' would send the message to a cloud service, which this server "
                "does not allow. GET /api/models lists the models to use"
            )

    async def _check_vocabulary(self, model: str, context: list[int]) -> None:
        """Refuse token ids that the model does not have: Ollama up to 0.24 dies of them."""
        known = await self._model(model)
        size = known.vocabulary_size if known else None
        if size is not None and max(context) >= size:
            raise BadRequest(
                f"context: token id {max(context)} is not of model '{model}', whose ids end at "
                f"{size - 1}. Send the context of an answer by the same model, or none"
            )

    async def _model(self, name: str) -> _Model | None:
        """Return what Ollama tells of a model, asked once in a while; None if it does not.

        Raises:
            ApiError: it fails. So may /api/generate then, and a model in the cloud may be told
                from others by this alone.
        """
        key = name.lower()
        if not self._is_known(key):
            lookup = self._lookups.setdefault(key, _Lookup())
            async with lookup.lock:
                if lookup.error:
                    raise lookup.error
                if not self._is_known(key):
                    try:
                        await self._look_up(name)
                    except ApiError as error:
                        lookup.error = error  # of all who wait for it, and of nobody after them
                        self._lookups.pop(key, None)
                        raise
        return self._known[key][0]

    def _is_known(self, key: str) -> bool:
        return key in self._known and time.monotonic() < self._known[key][1]

    async def _look_up(self, name: str) -> None:
        model, now = await self._show(name), time.monotonic()
        self._known = {key: known for key, known in self._known.items() if now < known[1]}
        self._known[name.lower()] = model, now + (KNOWN_FOR_S if model else UNKNOWN_FOR_S)

    async def _show(self, name: str) -> _Model | None:
        response, content = await self._api.ask("POST", "/api/show", {"model": name})
        if httpx.codes.is_server_error(response.status_code):
            raise failed_response(response, content)
        try:
            show = parse(response, content, _Show)
        except ApiError:
            return None  # /api/generate tells what is wrong, unless the way there knows no more
        sizes = [size for info, size in show.model_info.items() if info.endswith(".vocab_size")]
        size = sizes[0] if sizes and isinstance(sizes[0], int) else None
        return _Model(size, show.capabilities, bool(show.remote_model))

    async def _installed(self) -> list[str] | None:
        try:
            return await self.models()
        except ApiError:
            return None


def ollama_client(state: State) -> OllamaClient:
    """Return the client of the application whose `state` this is, made when it is first needed.

    A function that never needs it does not import httpx.
    """
    client: OllamaClient | None = getattr(state, "ollama", None)
    if client is None:
        transport = HTTPTransport(state.upstream.pool)
        client = OllamaClient(state.settings, transport, state.upstream.headers)
        state.ollama = client
    return client


def _is_cloud(model: str) -> bool:
    """Tell by its name whether Ollama runs `model` on its maker's servers."""
    return model.partition("@")[0].lower().endswith((":cloud", "-cloud"))
