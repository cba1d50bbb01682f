"""What the server reports about itself, its models and its callers: the answers to every GET.

As in `schemas`, the fields, types and defaults are the contract.
"""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from core.contract.schemas import Count


class Health(Struct, kw_only=True):
    """The API server's own state, and whether it can reach Ollama."""

    status: Literal["ok", "error"] = "ok"
    ollama_status: Literal["connected", "disconnected"]
    api_version: str
    warning: (
        Annotated[str, Meta(description="From /api/ready: the default model is not installed")]
        | UnsetType
    ) = UNSET


class ModelStats(Struct, kw_only=True):
    """How long a model's latest answers took, in seconds; null if unknown."""

    model: str
    count: Annotated[int, Meta(ge=0, description="Answers since the server started")]
    mean_s: float | None
    p50_s: float | None
    p95_s: float | None
    first_token_mean_s: float | None
    first_token_p50_s: float | None
    first_token_p95_s: float | None
    tokens_per_s: float | None


class QueueStats(Struct, kw_only=True):
    """The current load on the models, from all clients together."""

    running: Annotated[Count, Meta(description="Requests that Ollama is working on")]
    waiting: Annotated[Count, Meta(description="Requests waiting for their turn")]


class StatsAnswer(Struct, kw_only=True):
    """The response times of every model that has answered, and the queue."""

    success: bool = True
    models: list[ModelStats]
    queue: QueueStats


class Usage(Struct, kw_only=True):
    """A caller's answered requests to one model on one day."""

    day: Annotated[str, Meta(description="UTC, as 2026-01-31")]
    model: str
    requests: Count
    prompt_tokens: Annotated[Count, Meta(description="Tokens read")]
    tokens: Annotated[Count, Meta(description="Tokens written")]
    seconds: Annotated[float, Meta(ge=0, description="Time that the model took")]


class UsageAnswer(Struct, kw_only=True):
    """The caller's own usage."""

    success: bool = True
    caller: Annotated[str, Meta(description="`key:NAME`, `jwt:SUBJECT` or `anonymous`")]
    usage: list[Usage]


class Models(Struct, kw_only=True):
    """The installed models, in Ollama's own order."""

    success: bool = True
    models: list[str]
    count: Count
    capabilities: (
        Annotated[
            dict[str, list[str]],
            Meta(
                description="With ?capabilities=true: what each model can do, in Ollama's words, "
                "such as `vision`; models that Ollama does not describe are left out"
            ),
        ]
        | UnsetType
    ) = UNSET
    context_lengths: (
        Annotated[
            dict[str, Count],
            Meta(
                description="With ?capabilities=true: how many tokens each model holds at a time, "
                "question and answer together. For a loaded model it is what Ollama has set; for "
                "another it is the model's own maximum, and Ollama may set less"
            ),
        ]
        | UnsetType
    ) = UNSET
