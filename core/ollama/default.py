"""The model for requests that name none."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

PREFERRED = "llama3.1:70b"
"""The contract's default."""
KNOWN_FOR_S = 30
"""How long the lists of installed and loaded models are cached."""


class Models(Protocol):
    """Where the lists come from."""

    async def models(self) -> list[str]:
        """Return the installed models, the newest first."""

    async def loaded(self) -> list[str]:
        """Return the models in memory."""

    async def capabilities(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Return what each model can do, as far as known."""


class _Lists(msgspec.Struct):
    installed: list[str]
    loaded: list[str]
    until: float


class DefaultModel:
    """Chooses the default: DEFAULT_MODEL, the contract's, or another that can chat."""

    def __init__(self, ollama: Models, setting: str) -> None:
        """Look at the models of `ollama`, unless there is a `setting`."""
        self._ollama = ollama
        self._setting = setting
        self._lists: _Lists | None = None

    async def name(self, may_use: Callable[[str], bool]) -> str:
        """Return the default among the models that a client `may_use`.

        If the contract's is not installed, it is one that is in memory, else the newest.

        Raises:
            ApiError: Ollama does not list its models.
        """
        if self._setting:
            return self._setting
        lists = self._lists
        if lists is None or time.monotonic() >= lists.until:
            installed = await self._ollama.models()
            loaded = [] if PREFERRED in installed else await self._ollama.loaded()
            lists = self._lists = _Lists(installed, loaded, time.monotonic() + KNOWN_FOR_S)
        if PREFERRED in lists.installed:
            return PREFERRED
        usable = [name for name in lists.installed if may_use(name)]
        usable.sort(key=lambda name: name not in lists.loaded)  # stable: the newest stays first
        can = await self._ollama.capabilities(usable)
        chatting = [name for name in usable if "completion" in can.get(name, ["completion"])]
        return next(iter(chatting), PREFERRED)

    async def problem(self) -> str | None:
        """Return a warning about the default; None if it is installed as configured and can chat.

        Raises:
            ApiError: Ollama does not list its models.
        """
        if self._setting:
            spellings = {self._setting.lower(), f"{self._setting.lower()}:latest"}
            found = [name for name in await self._ollama.models() if name.lower() in spellings]
            if not found:
                return f"DEFAULT_MODEL is {self._setting}, which is not installed"
            can = await self._ollama.capabilities(found)
            chats = all("completion" in capabilities for capabilities in can.values())
            return None if chats else f"DEFAULT_MODEL is {self._setting}, which cannot chat"
        name = await self.name(lambda _: True)
        if name != PREFERRED:
            return f"{PREFERRED} is not installed: {name} answers requests that name no model"
        if self._lists and PREFERRED not in self._lists.installed:
            return "no model that can chat is installed"
        return None
