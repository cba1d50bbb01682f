"""The parts of Ollama's requests and answers that its clients here use.

Field names, order and types match the recordings in tests/recordings.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from core.engine.errors import EngineError

_T = TypeVar("_T")


class GenerateRequest(Struct, kw_only=True):
    """The body of POST /api/generate. Other fields, `keep_alive` among them, have no effect."""

    model: str = ""
    prompt: str = ""
    system: str = ""
    context: list[Annotated[int, Meta(ge=0, lt=2**31)]] | None = None
    stream: bool | None = None
    think: bool | Literal["low", "medium", "high", "max"] | None = None
    images: list[bytes] | None = None
    format: Any = None
    options: dict[str, Any] | None = None


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


class ShowRequest(Struct):
    """The body of POST /api/show."""

    model: str = ""


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

    details: ModelDetails
    model_info: dict[str, Any]
    capabilities: tuple[str, ...] = ("completion",)
    modified_at: datetime


def decode(body: bytes, type_: type[_T]) -> _T:
    """Return the request in `body`.

    Raises:
        EngineError: it is missing or invalid; 400.
    """
    if not body:
        raise EngineError("missing request body", 400)
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise EngineError(str(error), 400) from None
