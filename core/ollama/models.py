"""Facts about each model, looked up in Ollama and cached for a while."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakValueDictionary

import httpx
import msgspec

from core.contract.errors import ApiError
from core.ollama import api as ollama_api
from core.ollama.api import OllamaAPI, parse
from core.ollama.failures import failed_response

KNOWN_FOR_S = 600
"""How long a model's facts are cached: another may be pulled under the same name."""
UNKNOWN_FOR_S = 10
"""How long to wait before asking again about a model that Ollama does not describe."""
MAX_LOOKUPS = 8
"""How many models one request asks about at once."""


class Model(msgspec.Struct):
    """The facts kept from /api/show, whose answer is hundreds of kilobytes."""

    capabilities: list[str] | None
    is_cloud: bool
    context_length: int | None = None  # the most it was trained for, in tokens


class _Show(msgspec.Struct):
    capabilities: list[str] | None = None  # since 0.6.4
    remote_model: str = ""
    model_info: dict[str, Any] = {}


class _Loaded(msgspec.Struct):
    name: str
    context_length: int | None = None  # since 0.10


class _LoadedModels(msgspec.Struct):
    models: list[_Loaded]


class _Lookup:
    """A lookup in progress, shared by all requests that wait for it."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.error: ApiError | None = None


class ModelFacts:
    """Asks Ollama about each model once, however many requests need to know."""

    def __init__(self, api: OllamaAPI) -> None:
        self._api = api
        self._known: dict[str, tuple[Model | None, float]] = {}  # each with its expiry
        self._listed: dict[str, list[str]] = {}
        self._lookups = WeakValueDictionary[str, _Lookup]()

    def learn(self, capabilities: dict[str, list[str]]) -> None:
        """Take what the list of models says, so that `capabilities` need not ask."""
        self._listed = capabilities

    async def of(self, name: str) -> Model | None:
        """Return what Ollama says about a model; None if it does not describe it.

        Raises:
            ApiError: Ollama fails. Then /api/chat may fail too, and only this call can tell
                a model in the cloud from others.
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
                        lookup.error = error  # for those already waiting, not for later ones
                        self._lookups.pop(key, None)
                        raise
        return self._known[key][0]

    async def capabilities(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Return what each model in `names` can do, in Ollama's words; no model is loaded.

        Models that Ollama does not describe in time are left out.
        """
        few_at_once = asyncio.Semaphore(MAX_LOOKUPS)
        deadline = asyncio.get_running_loop().time() + ollama_api.METADATA_TIMEOUT_S

        async def of(name: str) -> list[str] | None:
            if name in self._listed:
                return self._listed[name]
            with suppress(ApiError, TimeoutError):
                async with asyncio.timeout_at(deadline), few_at_once:
                    model = await self.of(name)
                return model.capabilities if model else None
            return None

        answers = zip(names, await asyncio.gather(*map(of, names)), strict=True)
        return {name: capabilities for name, capabilities in answers if capabilities is not None}

    async def describe(self, names: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, int]]:
        """Return what each model in `names` can do, and its context length in tokens.

        Capabilities are in Ollama's words. The context length of a loaded model is that of its
        runner; of another it is the model's own, which Ollama may cut down when it loads it. What
        Ollama does not say in time is left out; no model is loaded.
        """
        few_at_once = asyncio.Semaphore(MAX_LOOKUPS)
        deadline = asyncio.get_running_loop().time() + ollama_api.METADATA_TIMEOUT_S

        async def of(name: str) -> Model | None:
            with suppress(ApiError, TimeoutError):
                async with asyncio.timeout_at(deadline), few_at_once:
                    return await self.of(name)
            return None

        async def runners() -> dict[str, int | None]:
            with suppress(ApiError, TimeoutError):
                async with asyncio.timeout_at(deadline), few_at_once:
                    return await self._loaded()
            return {}

        loaded, found = await asyncio.gather(runners(), asyncio.gather(*map(of, names)))
        models = {name: model for name, model in zip(names, found, strict=True) if model}
        lengths = {name: loaded.get(name) or model.context_length for name, model in models.items()}
        can = {name: model.capabilities for name, model in models.items()}
        can |= {name: self._listed[name] for name in names if name in self._listed}
        return (
            {name: capabilities for name, capabilities in can.items() if capabilities is not None},
            {name: length for name, length in lengths.items() if length},
        )

    async def _loaded(self) -> dict[str, int | None]:
        """Return the context length of each model that is loaded now."""
        answer = parse(*await self._api.ask("GET", "/api/ps"), _LoadedModels)
        return {model.name: model.context_length for model in answer.models}

    def _is_known(self, key: str) -> bool:
        return key in self._known and time.monotonic() < self._known[key][1]

    async def _look_up(self, name: str) -> None:
        model, now = await self._show(name), time.monotonic()
        self._known = {key: known for key, known in self._known.items() if now < known[1]}
        self._known[name.lower()] = model, now + (KNOWN_FOR_S if model else UNKNOWN_FOR_S)

    async def _show(self, name: str) -> Model | None:
        response, content = await self._api.ask("POST", "/api/show", {"model": name})
        if httpx.codes.is_server_error(response.status_code):
            raise failed_response(response, content)
        try:
            show = parse(response, content, _Show)
        except ApiError:
            return None  # /api/chat will say what is wrong, unless a relay interferes
        return Model(
            show.capabilities,
            bool(show.remote_model),
            _number(show.model_info, ".context_length"),
        )


def _number(model_info: dict[str, Any], ending: str) -> int | None:
    """Return the value whose key is the model's architecture and `ending`, if it is a number."""
    values = [value for key, value in model_info.items() if key.endswith(ending)]
    return values[0] if values and isinstance(values[0], int) else None
