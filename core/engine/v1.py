"""The engine's OpenAI-compatible paths, translated as Ollama does (openai/openai.go)."""

import math
import secrets
import time
from array import array
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.contract.responses import JSONResponse
from core.engine.answers import Line, StreamResponse, chatted, check, check_model, generated, joined
from core.engine.bodies import decode
from core.engine.errors import EngineError
from core.engine.llama import Llama
from core.engine.model import NAME
from core.engine.schemas import (
    ChatCompletionRequest,
    ChatLine,
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    EmbedRequest,
    GenerateLine,
    GenerateRequest,
    OpenAIMessage,
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
        messages=[message for each in asked.messages for message in _messages(each)],
        format=_format(asked.response_format or {}),
        options=_options(asked),
        think=asked.reasoning_effort not in {None, "none"},
    )
    _check_name(asked.model)
    check(chat)
    if asked.tools:
        raise EngineError(f"registry.ollama.ai/library/{NAME} does not support tools", 400)
    return await _answer(_Chat(asked.model), chatted(request.app.state.llama, chat), asked)


async def completions(request: Request) -> StreamResponse | JSONResponse:
    """POST /v1/completions."""
    asked = decode(await request.body(), CompletionRequest, empty="EOF")
    _check_name(asked.model)
    generate = GenerateRequest(model=asked.model, prompt=asked.prompt, options=_options(asked))
    check(generate)
    lines = generated(request.app.state.llama, generate)
    return await _answer(_Completion(asked.model), lines, asked)


async def embeddings(request: Request) -> Response:
    """POST /v1/embeddings."""
    asked = decode(await request.body(), EmbedRequest, empty="EOF")
    _check_name(asked.model)
    check_model(asked.model)
    if not asked.input:
        raise EngineError("invalid input", 400)
    llama: Llama = request.app.state.llama
    body = await llama.embed(msgspec.to_builtins(asked))
    if asked.dimensions and asked.dimensions > 0:
        body = _shortened(body, asked.dimensions)
    return Response(body, media_type="application/json")


def _shortened(body: bytes, dimensions: int) -> bytes:
    """Return the embeddings in `body` with the first `dimensions` only, again of length 1."""
    answer = msgspec.json.decode(body)
    for entry in answer["data"]:
        given = entry["embedding"]
        is_text = isinstance(given, str)
        numbers = array("f", b64decode(given) if is_text else given)[:dimensions]
        length = math.hypot(*numbers) or 1
        short = array("f", [number / length for number in numbers])
        entry["embedding"] = b64encode(short.tobytes()).decode() if is_text else short.tolist()
    return _encode(answer)


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
    if asked.stream:
        wants_usage = bool(asked.stream_options and asked.stream_options.include_usage)
        return StreamResponse(
            _events(form, lines, wants_usage=wants_usage),
            content_type="text/event-stream",
            failed=lambda text: _event(failure(text, 500)),
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


def _event(value: object) -> bytes:
    return b"data: %b\n\n" % _encode(value)


def _usage(line: ChatLine | GenerateLine) -> dict[str, int]:
    read, written = line.prompt_eval_count or 0, line.eval_count or 0
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _check_name(name: str) -> None:
    if not name:
        raise EngineError("model is required", 400)


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


def _messages(message: OpenAIMessage) -> list[ChatMessage]:
    """Return the text and the images of `message`, each as a message of its own, as in Ollama."""
    match message.content:
        case str(text):
            return [ChatMessage(role=message.role, content=text)]
        case list(parts):
            return [_part(message.role, part) for part in parts]
    shown = {int: "float64", float: "float64", type(None): "<nil>"}.get(type(message.content))
    raise EngineError(f"invalid message content type: {shown or 'map[string]interface {}'}", 400)


def _part(role: str, part: Any) -> ChatMessage:
    match part:
        case {"type": "text", "text": str(text)}:
            return ChatMessage(role=role, content=text)
        case {"type": "image_url", "image_url": {"url": str(url)} | str(url)}:
            if not url.startswith("data:"):
                raise EngineError(
                    "image URLs are not currently supported, please use base64 encoded data "
                    "instead",
                    400,
                )
            return ChatMessage(role=role, content="", images=[b""])  # which it cannot see
    raise EngineError("invalid message format", 400)


def _model(request: Request) -> dict[str, Any]:
    created = int(request.app.state.llama.file.path.stat().st_mtime)
    return {"id": NAME, "object": "model", "created": created, "owned_by": "library"}


routes = [
    Route("/v1/chat/completions", chat_completions, methods=["POST"]),
    Route("/v1/completions", completions, methods=["POST"]),
    Route("/v1/embeddings", embeddings, methods=["POST"]),
    Route("/v1/models", models),
    Route("/v1/models/{model:path}", model),
]
