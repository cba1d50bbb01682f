"""The client of the Ollama server: schema objects in and out, and every failure an ApiError."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime

import httpx
import msgspec
from msgspec import UNSET
from starlette.datastructures import State

from core.contract.errors import ApiError, BadRequest, ModelNotAllowed, ModelNotFound
from core.contract.schemas import ChatAnswer, ChatRequest
from core.ollama.api import OllamaAPI, parse, raise_explained, read_body
from core.ollama.connection import Header, UpstreamError
from core.ollama.default import DefaultModel
from core.ollama.failures import failed_response, says_model_is_missing
from core.ollama.models import ModelFacts
from core.ollama.pool import Body
from core.ollama.request import OllamaRequest
from core.ollama.upstream import Upstream
from core.ollama.wire import AnswerReader, Lines, read_answer, read_streamed_answer
from core.settings.schema import Settings

HINT_TIMEOUT_S = 1
"""How long an error waits for the names of the installed models, which are only a hint."""


class Tag(msgspec.Struct):
    """An installed model."""

    name: str
    modified_at: datetime | None = None
    capabilities: list[str] | None = None  # since 0.32
    remote_model: str = ""  # since 0.12, for a model in the cloud, whatever its name


class _Tags(msgspec.Struct):
    models: list[Tag]


class OllamaClient:
    """Calls one Ollama server; any number of requests may run at once."""

    def __init__(self, settings: Settings, upstream: Upstream) -> None:
        """Call OLLAMA_BASE_URL over the connections of `upstream`."""
        self._settings = settings
        self._api = OllamaAPI(
            settings.ollama_base_url,
            upstream.pool,
            upstream.headers,
            built_in=settings.built_in_model,
        )
        self._facts = ModelFacts(self._api)
        self.default = DefaultModel(self, settings.default_model)
        """The model for requests that name none."""
        # Relays on the internet cut off an answer that is silent for long (Cloudflare: 100 s).
        self._is_far = settings.ollama_base_url.startswith("https:")

    async def models(self) -> list[str]:
        """Return the names of the installed models, in Ollama's order.

        Raises:
            ApiError: as `tags` does.
        """
        return [tag.name for tag in await self.tags()]

    async def tags(self) -> list[Tag]:
        """Return the installed models, in Ollama's order.

        Raises:
            OllamaError: Ollama cannot be reached, or fails.
            RequestTimeout: it does not answer.
        """
        tags = parse(*await self._api.ask("/api/tags"), _Tags)
        self._facts.learn({tag.name: tag.capabilities for tag in tags.models if tag.capabilities})
        return [
            tag
            for tag in tags.models
            if self._settings.allow_cloud_models or not (tag.remote_model or _is_cloud(tag.name))
        ]

    async def not_found(self, model: str, may_use: Callable[[str], bool]) -> ModelNotFound:
        """Return the error that names the models to use, if Ollama lists them within a second."""
        installed = None
        with suppress(ApiError, TimeoutError):
            async with asyncio.timeout(HINT_TIMEOUT_S):
                installed = [name for name in await self.models() if may_use(name)]
        return ModelNotFound(model, installed)

    async def describe(self, names: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, int]]:
        """Return the capabilities and context lengths of `names`, as `ModelFacts.describe` does."""
        return await self._facts.describe(names)

    async def loaded(self) -> list[str]:
        """Return the names of the models in memory; none if Ollama or a relay does not say."""
        try:
            return [tag.name for tag in parse(*await self._api.ask("/api/ps"), _Tags).models]
        except ApiError:
            return []

    async def capabilities(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Return what each model in `names` can do, in Ollama's words; no model is loaded.

        Models that Ollama does not describe in time are left out.
        """
        return await self._facts.capabilities(names)

    async def load(self, model: str) -> None:
        """Have Ollama load `model`, and return when it has; it stays loaded as long as any other.

        Raises:
            ApiError: it cannot be loaded, or is a cloud model that is not allowed.
        """
        if not self._settings.allow_cloud_models:
            await self.check_place(model)
        request = {"model": model, "messages": [], "stream": False}
        status, headers, body = await self._api.send("/api/chat", request)
        if status != httpx.codes.OK:
            raise await _failure(model, status, headers, body)
        await read_body(body)

    async def chat(self, chat: ChatRequest, model: str, request_id: str = "") -> ChatAnswer:
        """Return the whole answer of `model` to `chat`, without its `context`.

        `request_id` is for logs upstream.

        Raises:
            ApiError: the chat failed; its class and text say what went wrong.
        """
        body = await self._answer(chat, model, request_id, stream=self._is_far)
        read_whole = read_streamed_answer if self._is_far else read_answer
        return read_whole(await read_body(body), chat, model)

    async def stream(self, chat: ChatRequest, model: str, request_id: str = "") -> "AnswerStream":
        """Return the answer to `chat` once it has begun, to be closed; raises what `chat` does."""
        body = await self._answer(chat, model, request_id, stream=True)
        return AnswerStream(body, AnswerReader(thinking=bool(chat.think)))

    async def _answer(
        self, chat: ChatRequest, model: str, request_id: str, *, stream: bool
    ) -> Body:
        """Return the model's answer once it has begun."""
        await self.check_place(model)
        assert chat.messages is not UNSET
        for message in chat.messages:
            if message.images:
                await self._check_sight(model)
                break
        max_predict = self._settings.max_predict
        request = OllamaRequest.from_chat(chat, model, max_predict, stream=stream)
        status, headers, body = await self._api.send("/api/chat", request, request_id)
        if status != httpx.codes.OK:
            raise await _failure(model, status, headers, body)
        return body

    async def relay(
        self, path: str, body: bytes, request_id: str
    ) -> tuple[int, list[Header], Body]:
        """Send `body` to a path of Ollama's under `/v1`, and return the response's head.

        Raises:
            OllamaError: no response arrived.
        """
        return await self._api.send(path, msgspec.Raw(body), request_id)

    async def check_place(self, model: str) -> None:
        """Refuse a cloud model, even a copy under a local name.

        Raises:
            ModelNotAllowed: the model is in the cloud, and ALLOW_CLOUD_MODELS is not set.
        """
        if self._settings.allow_cloud_models:
            return
        facts = self._facts
        if _is_cloud(model) or (
            (model_facts := facts.known(model) or await facts.of(model)) and model_facts.is_cloud
        ):
            raise ModelNotAllowed(
                f"Model '{model}' would send the message to a cloud service, which this server "
                "does not allow. GET /api/models lists the models to use"
            )

    async def _check_sight(self, model: str) -> None:
        """Refuse images for a model without vision: in Ollama 0.24 it invents what it sees."""
        facts = await self._facts.of(model)
        if facts and facts.capabilities is not None and "vision" not in facts.capabilities:
            raise BadRequest(
                f"images: model '{model}' cannot see images. GET /api/models?capabilities=true "
                "lists the models with vision"
            )


class AnswerStream:
    """A streamed answer; an asynchronous generator would take longer, and more memory."""

    __slots__ = ("_body", "_reader")

    def __init__(self, body: Body, reader: AnswerReader) -> None:
        self._body = body
        self._reader = reader

    async def read(self) -> Iterator[Lines] | None:
        """Return the lines that arrive next, in batches; None at the end.

        The last batch has the end of the answer, without its `context`.

        Raises:
            ApiError: the rest will not arrive; the iterator raises it behind the last good line.
        """
        if self._reader.finished:
            await self._body.drain()
            return None
        try:
            data = await self._body.read()
        except UpstreamError as error:
            raise_explained(error)
        return self._reader.feed(data) if data else self._reader.end()

    def close(self) -> None:
        """Close the connection, which stops the model, unless the answer was read to its end."""
        self._body.close()


def ollama_client(state: State) -> OllamaClient:
    """Return the client of the application with this `state`, created on first use.

    A function that never needs it does not import httpx.
    """
    client: OllamaClient | None = getattr(state, "ollama", None)
    if client is None:
        client = state.ollama = OllamaClient(state.settings, state.upstream)
    return client


async def _failure(model: str, status: int, headers: list[Header], body: Body) -> ApiError:
    """Return the error for an answer of /api/chat that is not a 200."""
    response, content = httpx.Response(status, headers=headers), await read_body(body)
    if says_model_is_missing(response, content):
        return ModelNotFound(model, None)
    return failed_response(response, content)


def _is_cloud(model: str) -> bool:
    """Return whether the name of `model` says that it runs on Ollama's servers."""
    return model.partition("@")[0].lower().endswith((":cloud", "-cloud"))
