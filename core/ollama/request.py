"""The request that Ollama's /api/chat gets."""

from functools import lru_cache
from typing import Literal, Self

import msgspec
from msgspec import UNSET, Struct, UnsetType

from core.contract.schemas import ChatRequest, Message, Options


class OllamaRequest(Struct, kw_only=True):
    """The body of POST /api/chat; it never contains `keep_alive`, `tools` or `num_ctx`."""

    model: str
    messages: list[Message]
    stream: bool
    think: bool | Literal["low", "medium", "high"]
    options: Options
    # Otherwise Ollama silently drops the start of an over-long conversation: before the answer,
    # and while the answer grows.
    truncate: bool = False
    shift: bool = False
    format: msgspec.Raw | UnsetType = UNSET

    @classmethod
    def from_chat(cls, chat: ChatRequest, model: str, max_predict: int, *, stream: bool) -> Self:
        """Translate a chat request that has its whole conversation in `messages`."""
        assert chat.messages is not UNSET
        if chat.options is UNSET:
            options = _limited_to(max_predict)
        else:
            wanted = 0 if chat.options.num_predict is UNSET else chat.options.num_predict
            limit = min(wanted, max_predict) if wanted > 0 else max_predict
            options = msgspec.structs.replace(chat.options, num_predict=limit)
        return cls(
            model=model,
            messages=chat.messages,
            stream=stream,
            think=chat.think,
            options=options,
            format=chat.format,
        )


@lru_cache(maxsize=1)
def _limited_to(tokens: int) -> Options:
    return Options(num_predict=tokens)
