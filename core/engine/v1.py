"""The engine's OpenAI-compatible paths, translated as Ollama does (openai/openai.go)."""

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from core.contract.responses import JSONResponse
from core.engine.answers import Line, StreamResponse, chatted, check, check_model, generated, joined
from core.engine.bodies import decode
from core.engine.contents import messages_of
from core.engine.errors import EngineError
from core.engine.model import NAME
from core.engine.schemas import (
    ChatCompletionRequest,
    ChatLine,
    ChatRequest,
    CompletionRequest,
    GenerateLine,
    GenerateRequest,
    OpenAIRequest,
)

_TYPES = {400: "invalid_request_error", 404: "not_found_error"}
_encode = msgspec.json.encode


async def chat_completions(request: Request) -> StreamResponse | JSONResponse:
    """POST /v1/chat/completions."""
    asked = decode(await request.body(), ChatCompletionRequest, empty="EOF")
    if not asked.messages:
        raise EngineError("[] is too short - 'messages'", 400)
    chat = ChatRequest(
        model=asked.model,
        messages=[message for each in asked.messages for message in messages_of(each)],
        format=_format(asked.response_format or {}),
        options=_options(asked),
        think=asked.reasoning_effort not in {None, "none"},
    )
    check_name(asked.model)
    check(chat)
    check_tools(asked.tools)
    return await _answer(_Chat(asked.model), chatted(request.app.state.llama, chat), asked)


async def completions(request: Request) -> StreamResponse | JSONResponse:
    """POST /v1/completions."""
    asked = decode(await request.body(), CompletionRequest, empty="EOF")
    check_name(asked.model)
    generate = GenerateRequest(model=asked.model, prompt=asked.prompt, options=_options(asked))
    check(generate)
    lines = generated(request.app.state.llama, generate)
    return await _answer(_Completion(asked.model), lines, asked)


async def models(request: Request) -> JSONResponse:
    """GET /v1/models: the only model."""
    return JSONResponse({"object": "list", "data": [_model(request)]})


async def model(request: Request) -> JSONResponse:
    """GET /v1/models/{model}."""
    check_model(request.path_params["model"])
    return JSONResponse(_model(request))


def failure(text: str, status: int) -> dict[str, Any]:
    """Return an error in OpenAI's shape."""
    kind = _TYPES.get(status, "api_error")
    return {"error": {"message": text, "type": kind, "param": None, "code": None}}


def check_name(name: str) -> None:
    """Raise EngineError if the request names no model."""
    if not name:
        raise EngineError("model is required", 400)


def check_tools(tools: list[Any] | None) -> None:
    """Raise EngineError if the request has tools, which the model cannot use."""
    if tools:
        raise EngineError(f"registry.ollama.ai/library/{NAME} does not support tools", 400)


class _Completion:
    """OpenAI's form for the lines of an answer."""

    prefix, whole, part = "cmpl", "text_completion", "text_completion"

    def __init__(self, model: str) -> None:
        self._model = model
        self._id = f"{self.prefix}-{secrets.randbelow(999)}"
        self._created = int(time.time())

    def envelope(self, kind: str, choices: list[Any], **fields: Any) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self._model,
            "system_fingerprint": "fp_ollama",
            "choices": choices,
            **fields,
        }

    def choice(self, line: ChatLine | GenerateLine, key: str) -> dict[str, Any]:
        assert isinstance(line, GenerateLine)
        return {"text": line.response, "index": 0, "finish_reason": line.done_reason or None}


class _Chat(_Completion):
    """The same for chat completions."""

    prefix, whole, part = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def choice(self, line: ChatLine | GenerateLine, key: str) -> dict[str, Any]:
        assert isinstance(line, ChatLine)
        message = {"role": "assistant", "content": line.message.content}
        return {"index": 0, key: message, "finish_reason": line.done_reason or None}


async def _answer(
    form: _Completion, lines: AsyncGenerator[Line], asked: OpenAIRequest
) -> StreamResponse | JSONResponse:
    if asked.logprobs:
        raise EngineError("the built-in model gives no logprobs: use a model of Ollama", 400)
    if asked.stream:
        wants_usage = bool(asked.stream_options and asked.stream_options.include_usage)
        return StreamResponse(
            _events(form, lines, wants_usage=wants_usage),
            content_type="text/event-stream",
            failed=failed_event,
        )
    line = await joined(lines)
    choices = [form.choice(line, "message")]
    return JSONResponse(form.envelope(form.whole, choices, usage=_usage(line)))


async def _events(
    form: _Completion, lines: AsyncGenerator[Line], *, wants_usage: bool
) -> AsyncGenerator[bytes]:
    async with aclosing(lines):
        async for line in lines:
            yield _event(form.envelope(form.part, [form.choice(line, "delta")]))
    if wants_usage:
        yield _event(form.envelope(form.part, [], usage=_usage(line)))
    yield b"data: [DONE]\n\n"


def event(kind: str, **fields: Any) -> bytes:
    """Return an event of a stream of messages or responses."""
    return b"event: %b\n%b" % (kind.encode(), _event({"type": kind, **fields}))


def failed_event(text: str) -> bytes:
    """Return the last event of a stream that fails."""
    return _event(failure(text, 500))


def _event(value: object) -> bytes:
    return b"data: %b\n\n" % _encode(value)


def _usage(line: ChatLine | GenerateLine) -> dict[str, int]:
    read, written = line.prompt_eval_count or 0, line.eval_count or 0
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _options(asked: OpenAIRequest) -> dict[str, Any]:
    options = {
        "num_predict": asked.max_tokens,
        "seed": asked.seed,
        "stop": [asked.stop] if isinstance(asked.stop, str) else asked.stop,
        "temperature": 1.0 if asked.temperature is None else asked.temperature,
        "top_p": 1.0 if asked.top_p is None else asked.top_p,
        "frequency_penalty": asked.frequency_penalty,
        "presence_penalty": asked.presence_penalty,
    }
    return {name: value for name, value in options.items() if value is not None}


def _format(asked: dict[str, Any]) -> Any:
    match asked:
        case {"type": "json_object"}:
            return "json"
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            return schema
    return None


def _model(request: Request) -> dict[str, Any]:
    created = int(request.app.state.llama.file.path.stat().st_mtime)
    return {"id": NAME, "object": "model", "created": created, "owned_by": "library"}


routes = [
    Route("/v1/chat/completions", chat_completions, methods=["POST"]),
    Route("/v1/completions", completions, methods=["POST"]),
    Route("/v1/models", models),
    Route("/v1/models/{model:path}", model),
]
