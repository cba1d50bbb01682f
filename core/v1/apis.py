"""The differences between the relayed paths.

Facts about Ollama's answers are from its middleware/openai.go and from recordings/v1.
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType


class Usage(Struct):
    """Token counts, which OpenAI's older and newer APIs name differently."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def read(self) -> int:
        """The tokens of the prompt."""
        return self.prompt_tokens or self.input_tokens

    @property
    def written(self) -> int:
        """The tokens of the answer."""
        return self.completion_tokens or self.output_tokens


class _Choice(Struct):
    finish_reason: str | None = None


class Answer(Struct):
    """What a plain answer, or an event's data, says about its end."""

    choices: list[_Choice] = []
    stop_reason: str | None = None
    status: str | None = None
    data: list[msgspec.Raw] | UnsetType = UNSET
    usage: Usage | None = None
    response: "Answer | None" = None
    """The whole response, in the last event of a stream of responses."""


class Api(NamedTuple):
    """One relayed path."""

    path: str
    limits: tuple[str, ...]
    """The fields that limit an answer's tokens; Ollama obeys the last one."""
    ends: tuple[bytes, ...]
    """How the last event of a complete stream begins; none if the path does not stream."""
    is_complete: Callable[[Answer], bool]
    """Whether a plain answer is complete."""
    has_usage_option: bool = False
    """Whether a stream reports its usage only if `stream_options` asks for it."""


def _is_finished(answer: Answer) -> bool:
    return bool(answer.choices) and all(choice.finish_reason for choice in answer.choices)


CHAT_COMPLETIONS = Api(
    "/v1/chat/completions",
    ("max_completion_tokens", "max_tokens"),
    (b"data: [DONE]",),
    _is_finished,
    has_usage_option=True,
)
COMPLETIONS = Api(
    "/v1/completions", ("max_tokens",), (b"data: [DONE]",), _is_finished, has_usage_option=True
)
EMBEDDINGS = Api("/v1/embeddings", (), (), lambda answer: bool(answer.data))
RESPONSES = Api(
    "/v1/responses",
    ("max_output_tokens",),
    (
        b"event: response.completed\n",
        b"event: response.incomplete\n",
        b"event: response.failed\n",
    ),
    lambda answer: answer.status in {"completed", "incomplete"},
)
MESSAGES = Api(
    "/v1/messages",
    ("max_tokens",),
    (b"event: message_stop\n",),
    lambda answer: bool(answer.stop_reason),
)
