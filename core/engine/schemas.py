"""The parts of Ollama's requests and answers that this project's clients use.

Field names, order and types match the recordings in tests/recordings.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType


class Asked(Struct, kw_only=True):
    """The fields of both kinds of request. Others, such as `keep_alive`, are ignored."""

    model: str = ""
    stream: bool | None = None
    think: bool | Literal["low", "medium", "high", "max"] | None = None
    format: Any = None
    options: dict[str, Any] | None = None


class GenerateRequest(Asked, kw_only=True):
    """The body of POST /api/generate."""

    prompt: str = ""
    system: str = ""
    context: list[Annotated[int, Meta(ge=0, lt=2**31)]] | None = None
    images: list[bytes] | None = None


class ChatMessage(Struct, kw_only=True, omit_defaults=True):
    """A message of a conversation."""

    role: str
    content: str
    images: list[bytes] | None = None


class ChatRequest(Asked, kw_only=True):
    """The body of POST /api/chat."""

    messages: list[ChatMessage] | None = None


class GenerateLine(Struct, kw_only=True):
    """A line of a streamed answer, or the whole of a plain one. Durations are in nanoseconds."""

    model: str
    created_at: datetime = msgspec.field(default_factory=lambda: datetime.now(UTC))
    response: str
    done: bool = False
    done_reason: Literal["stop", "length", "load"] | UnsetType = UNSET
    context: list[int] | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET


class ChatLine(Struct, kw_only=True):
    """A `GenerateLine` of /api/chat."""

    model: str
    created_at: datetime = msgspec.field(default_factory=lambda: datetime.now(UTC))
    message: ChatMessage
    done: bool = False
    done_reason: Literal["stop", "length", "load"] | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET


class ShowRequest(Struct):
    """The body of POST /api/show; `name` is the older name of `model`."""

    model: str = ""
    name: str = ""


class ModelDetails(Struct, kw_only=True):
    """The kind of model, as /api/tags, /api/ps and /api/show report it."""

    parent_model: str = ""
    format: str = "gguf"
    family: str = "llama"
    families: tuple[str, ...] = ("llama",)
    parameter_size: str
    quantization_level: str


class Tag(Struct, kw_only=True):
    """A model in /api/tags. `size` is in bytes."""

    name: str
    model: str
    modified_at: datetime
    size: int
    digest: str
    details: ModelDetails


class LoadedModel(Struct, kw_only=True):
    """A model in /api/ps. `size` is in bytes."""

    name: str
    model: str
    size: int
    digest: str
    details: ModelDetails
    expires_at: datetime = datetime.max.replace(tzinfo=UTC)
    size_vram: int = 0
    context_length: int


class Show(Struct, kw_only=True):
    """The answer to POST /api/show."""

    modelfile: str
    parameters: str
    template: str
    details: ModelDetails
    model_info: dict[str, Any]
    capabilities: tuple[str, ...] = ("completion",)
    modified_at: datetime


class StreamOptions(Struct):
    """What a stream of /v1 includes in addition to the text."""

    include_usage: bool = False


class OpenAIRequest(Struct, kw_only=True):
    """The common fields of requests to /v1/chat/completions and /v1/completions.

    Others are ignored, as in Ollama (openai/openai.go).
    """

    model: str = ""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logprobs: bool | int | None = None


class OpenAIMessage(Struct):
    """A message; `content` is a text, or a list of parts, or null if there are `tool_calls`."""

    role: str = ""
    content: Any = None
    tool_calls: list[Any] | None = None


class ChatCompletionRequest(OpenAIRequest, kw_only=True):
    """The body of POST /v1/chat/completions."""

    messages: list[OpenAIMessage] | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    tools: list[dict[str, Any]] | None = None


class CompletionRequest(OpenAIRequest, kw_only=True):
    """The body of POST /v1/completions."""

    prompt: str = ""


class EmbedRequest(Struct, kw_only=True):
    """The body of POST /v1/embeddings."""

    model: str = ""
    input: str | list[str] = ""
    encoding_format: str = "float"
    dimensions: int | None = None


class ResponsesText(Struct):
    """How the text of a response is to look."""

    format: dict[str, Any] | None = None


class ResponsesRequest(Struct, kw_only=True):
    """The body of POST /v1/responses; `input` is a text, or a list of messages and other items."""

    model: str = ""
    stream: bool | None = None
    input: str | list[dict[str, Any]] = ""
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    text: ResponsesText | None = None
    reasoning: dict[str, Any] | None = None
    tools: list[Any] | None = None


class MessagesRequest(Struct, kw_only=True):
    """The body of POST /v1/messages."""

    model: str = ""
    stream: bool | None = None
    messages: list[OpenAIMessage] | None = None
    system: Any = None
    max_tokens: int = 0
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    thinking: dict[str, Any] | None = None
    tools: list[Any] | None = None
