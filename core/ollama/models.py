"""Facts about each model, looked up in Ollama and cached for a while."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar
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

_T = TypeVar("_T")


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


class _InTime:
    """Asks Ollama a few questions at a time, and waits for all answers no longer than for one."""

    def __init__(self) -> None:
        self._few_at_once = asyncio.Semaphore(MAX_LOOKUPS)
        self._deadline = asyncio.get_running_loop().time() + ollama_api.METADATA_TIMEOUT_S

    async def __call__(self, ask: Callable[[], Awaitable[_T | None]]) -> _T | None:
        """Return the answer; None if Ollama fails or is late."""
        with suppress(ApiError, TimeoutError):
            async with asyncio.timeout_at(self._deadline), self._few_at_once:
                return await ask()
        return None


class ModelFacts:
    """Asks Ollama about each model once, however many requests need to know."""

    def __init__(self, api: OllamaAPI) -> None:
        self._api = api
        self._known: dict[str, tuple[Model | None, float]] = {}  # each with its expiry
        self._listed: dict[str, list[str]] = {}
        self._lookups = WeakValueDictionary[str, _Lookup]()

    def learn(self, capabilities: dict[str, list[str]]) -> None:
        """Remember what the list of models says, so that `capabilities` need not ask."""
        self._listed = capabilities

    def known(self, name: str) -> Model | None:
        """Return what is known about a model without asking Ollama; None if nothing is known."""
        model, expires = self._known.get(name.lower(), (None, 0.0))
        return model if time.monotonic() < expires else None

    async def of(self, name: str) -> Model | None:
        """Return what Ollama says about a model; None if it does not describe it.

        Raises:
            ApiError: Ollama fails. Then /api/chat may fail too, and only this call reveals
                whether a model is in the cloud.
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
        in_time = _InTime()
        unlisted = [name for name in names if name not in self._listed]
        return self._capabilities(names, await self._described(unlisted, in_time))

    async def describe(self, names: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, int]]:
        """Return the `capabilities` of the models in `names`, and their context lengths in tokens.

        The context length of a loaded model is that of its runner; of another it is the model's
        own, and Ollama may load it with less. What Ollama does not say in time is left out.
        """
        in_time = _InTime()
        loaded, models = await asyncio.gather(
            in_time(self._loaded), self._described(names, in_time)
        )
        runners = loaded or {}
        lengths = {name: runners.get(name) or models[name].context_length for name in models}
        known = {name: length for name, length in lengths.items() if length}
        return self._capabilities(names, models), known

    async def _described(self, names: Sequence[str], in_time: _InTime) -> dict[str, Model]:
        models = await asyncio.gather(*(in_time(partial(self.of, name)) for name in names))
        return {name: model for name, model in zip(names, models, strict=True) if model}

    def _capabilities(self, names: Sequence[str], models: dict[str, Model]) -> dict[str, list[str]]:
        described = {name: model.capabilities for name, model in models.items()}
        found = {name: self._listed.get(name, described.get(name)) for name in names}
        return {
            name: capabilities for name, capabilities in found.items() if capabilities is not None
        }

    async def _loaded(self) -> dict[str, int | None]:
        """Return the context length of each model that is loaded now."""
        answer = parse(*await self._api.ask("/api/ps"), _LoadedModels)
        return {model.name: model.context_length for model in answer.models}

    def _is_known(self, key: str) -> bool:
        return key in self._known and time.monotonic() < self._known[key][1]

    async def _look_up(self, name: str) -> None:
        model, now = await self._show(name), time.monotonic()
        self._known = {key: known for key, known in self._known.items() if now < known[1]}
        self._known[name.lower()] = model, now + (KNOWN_FOR_S if model else UNKNOWN_FOR_S)

    async def _show(self, name: str) -> Model | None:
        response, content = await self._api.ask("/api/show", {"model": name})
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
