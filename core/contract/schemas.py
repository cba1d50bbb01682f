"""A chat's requests and answers, and the shape of every failure.

With `reports`, the source of the OpenAPI document. The fields, types and defaults are the
contract: adding a field is fine, changing one is not.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

API_VERSION = "1.0.0"
"""The version of the API contract, not of this package."""
MAX_CONTEXT_LENGTH = 131_072
"""The longest context that options may refer to, in tokens: llama3.1's."""
MAX_VOCABULARY = 2**20
"""More tokens than any model knows."""
MAX_IMAGES = 32
"""In one request."""
MAX_MESSAGES = 4096
"""In one conversation."""

Count = Annotated[int, Meta(ge=0)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Probability = Annotated[float, Meta(ge=0, le=1)]
ModelName = Annotated[str, Meta(max_length=255, pattern=r"^(?!.*//)[A-Za-z0-9._:/@-]+$(?!\n)")]
StopWord = Annotated[str, Meta(min_length=1, max_length=256)]
Role = Literal["system", "user", "assistant"]
Base64 = Annotated[Raw, Meta(extra_json_schema={"type": "string", "contentEncoding": "base64"})]
"""A string that is kept as JSON, undecoded: it may be megabytes."""
Images = Annotated[
    list[Base64],
    Meta(max_length=MAX_IMAGES, description="Images for a vision model, in base64"),
]


class Options(Struct, forbid_unknown_fields=True, kw_only=True):
    """Sampling options, without those that would reload the model for everyone."""

    temperature: Annotated[float, Meta(ge=0, le=10)] | UnsetType = UNSET
    top_k: Annotated[int, Meta(ge=0, le=MAX_VOCABULARY)] | UnsetType = UNSET
    top_p: Probability | UnsetType = UNSET
    min_p: Probability | UnsetType = UNSET
    typical_p: Probability | UnsetType = UNSET
    repeat_last_n: (
        Annotated[
            int,
            Meta(ge=-1, le=MAX_CONTEXT_LENGTH, description="Tokens; -1: as many as possible"),
        ]
        | UnsetType
    ) = UNSET
    repeat_penalty: Annotated[float, Meta(ge=0.1, le=10)] | UnsetType = UNSET
    presence_penalty: Penalty | UnsetType = UNSET
    frequency_penalty: Penalty | UnsetType = UNSET
    seed: Annotated[int, Meta(ge=-(2**31), lt=2**31)] | UnsetType = UNSET
    stop: Annotated[list[StopWord], Meta(max_length=64)] | UnsetType = UNSET
    num_predict: (
        Annotated[
            int,
            Meta(
                ge=-(2**31),
                lt=2**31,
                description="Maximum tokens in the answer; 0 or less: as many as the server allows",
            ),
        ]
        | UnsetType
    ) = UNSET


class Message(Struct, kw_only=True, omit_defaults=True):
    """A message of a conversation."""

    role: Role
    content: str
    images: Images = []


class ChatRequest(Struct, kw_only=True):
    """A message for a model, or a conversation that ends with one. Unknown fields are ignored."""

    message: (
        Annotated[
            str, Meta(description="What to say to the model; not blank. Required without messages")
        ]
        | UnsetType
    ) = UNSET
    messages: (
        Annotated[
            list[Message],
            Meta(
                min_length=1,
                max_length=MAX_MESSAGES,
                description="The whole conversation, in place of message, context and images; the "
                "last message is the user's",
            ),
        ]
        | UnsetType
    ) = UNSET
    model: Annotated[ModelName, Meta(description="An installed model")] | UnsetType = UNSET
    stream: Annotated[bool, Meta(description="Answer as /api/chat/stream does")] = False
    context: (
        Annotated[
            list[Annotated[int, Meta(ge=0, lt=2**31)]],
            Meta(
                description="The previous answer's context, to continue that conversation: its "
                "text, without images and thinking"
            ),
        ]
        | None
    ) = None
    system: (
        Annotated[
            str, Meta(description="System prompt, replacing the conversation's; empty removes it")
        ]
        | UnsetType
    ) = UNSET
    options: Options | UnsetType = UNSET
    format: (
        Annotated[
            Raw,
            Meta(
                description='"json", or the JSON schema that the answer must follow',
                extra_json_schema={"anyOf": [{"const": "json"}, {"type": "object"}]},
            ),
        ]
        | UnsetType
    ) = UNSET
    images: Images = []
    think: Annotated[
        bool | Literal["low", "medium", "high"],
        Meta(description="Let a reasoning model think; its thinking comes with the answer"),
    ] = False


class ChatAnswer(Struct, kw_only=True):
    """A whole answer. The last five fields are Ollama's, present if Ollama sent them."""

    success: bool = True
    response: str
    model: str
    done: bool = True
    context: Annotated[
        list[int], Meta(description="The conversation so far, to be sent back unchanged")
    ] = []
    done_reason: str | UnsetType = UNSET
    prompt_eval_count: Annotated[int, Meta(description="Tokens read")] | UnsetType = UNSET
    eval_count: Annotated[int, Meta(description="Tokens written")] | UnsetType = UNSET
    total_duration: Annotated[int, Meta(description="Nanoseconds")] | UnsetType = UNSET
    thinking: Annotated[str, Meta(description="Only when asked for")] | UnsetType = UNSET


class StreamToken(Struct, gc=False):
    """A line of a stream: the next piece of the answer, which may be empty."""

    response: str
    done: bool


class Heartbeat(StreamToken):
    """A line sent to a client that prefers heartbeats: its stream is alive, but nothing is new."""

    heartbeat: bool = True


class StreamEnd(Struct, kw_only=True):
    """The last line of a successful stream, with the fields of a `ChatAnswer`."""

    response: str = ""
    done: bool = True
    context: list[int] = []
    done_reason: str | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    thinking: str | UnsetType = UNSET


class Error(Struct, kw_only=True):
    """The shape of every failure."""

    success: bool = False
    error: Annotated[str, Meta(description="What went wrong, and what to do about it")]


class StreamError(Error, kw_only=True):
    """The last line of a stream that failed after its first line."""

    done: bool = True
    status: (
        Annotated[
            int,
            Meta(
                description="With heartbeats preferred: the HTTP status that the failure would "
                "have had before the first line"
            ),
        ]
        | UnsetType
    ) = UNSET
