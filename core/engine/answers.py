"""Answers of /api/generate and /api/chat: the prompt template, the lines, and how they are sent."""

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec
from starlette.types import Receive, Scope, Send

from core.engine.errors import EngineError
from core.engine.llama import Llama, Piece
from core.engine.model import NAME
from core.engine.sampling import grammar, sampling
from core.engine.schemas import (
    Asked,
    ChatLine,
    ChatMessage,
    ChatRequest,
    GenerateLine,
    GenerateRequest,
)

Line = TypeVar("Line", GenerateLine, ChatLine)

_NS_PER_MS = 1_000_000
_JSON_STARTS = frozenset('{["-0123456789tfn')

_encode = msgspec.json.Encoder().encode


async def generated(llama: Llama, asked: GenerateRequest) -> AsyncGenerator[GenerateLine]:
    """Yield the lines of the answer to `asked`; the last one has the figures, and no text.

    Raises:
        EngineError: the answer fails, at its start or later.
    """
    started = time.perf_counter_ns()
    said = [ChatMessage(role="user", content=asked.prompt, images=asked.images)]
    if asked.system:
        said.insert(0, ChatMessage(role="system", content=asked.system))
    prompt = [*(asked.context or ()), *await llama.tokenize(templated(said))]
    text = ""
    async with aclosing(_written(llama, prompt, asked)) as pieces:
        async for piece in pieces:
            text += piece.content
            if piece.content:
                yield GenerateLine(model=asked.model, response=piece.content)
            if piece.stop:
                # As in Ollama: the token ids of the text that was sent, without the stop word.
                context = [*prompt, *await llama.tokenize(text)]
                figures = _figures(piece, time.perf_counter_ns() - started)
                yield GenerateLine(model=asked.model, response="", context=context, **figures)


async def chatted(llama: Llama, asked: ChatRequest) -> AsyncGenerator[ChatLine]:
    """Yield the lines of the answer to `asked`, as `generated` does.

    Raises:
        EngineError: the answer fails, at its start or later.
    """
    started = time.perf_counter_ns()
    prompt = await llama.tokenize(templated(asked.messages or ()))
    async with aclosing(_written(llama, prompt, asked)) as pieces:
        async for piece in pieces:
            if piece.content:
                message = ChatMessage(role="assistant", content=piece.content)
                yield ChatLine(model=asked.model, message=message)
            if piece.stop:
                figures = _figures(piece, time.perf_counter_ns() - started)
                message = ChatMessage(role="assistant", content="")
                yield ChatLine(model=asked.model, message=message, **figures)


async def _written(llama: Llama, prompt: list[int], asked: Asked) -> AsyncGenerator[Piece]:
    """Yield what the model writes after the token ids of `prompt`."""
    parameters = sampling(asked.options or {}) | grammar(asked.format)
    follows_schema = "json_schema" in parameters
    text = ""
    async with aclosing(llama.generate(prompt, parameters)) as pieces:
        async for piece in pieces:
            if follows_schema:
                if piece.content and not text:
                    _check(piece.content[0] in _JSON_STARTS)
                text += piece.content
                if piece.stop_type == "eos":
                    _check(_is_json(text))
            yield piece


async def joined(lines: AsyncGenerator[Line]) -> Line:
    """Return the whole answer as one line."""
    async with aclosing(lines):
        every = [line async for line in lines]
    if isinstance(every[-1], GenerateLine):
        text: Any = "".join([line.response for line in every if isinstance(line, GenerateLine)])
        return msgspec.structs.replace(every[-1], response=text)
    text = "".join([line.message.content for line in every if isinstance(line, ChatLine)])
    message = ChatMessage(role="assistant", content=text)
    return msgspec.structs.replace(every[-1], message=message)


async def encoded(
    lines: AsyncGenerator[GenerateLine] | AsyncGenerator[ChatLine],
) -> AsyncGenerator[bytes]:
    """Yield `lines` as NDJSON."""
    async with aclosing(lines):
        async for line in lines:
            yield _encode(line) + b"\n"


def failed_line(text: str) -> bytes:
    """Return the last line of a stream that fails."""
    return _encode({"error": text}) + b"\n"


class StreamResponse:
    """An ASGI application that sends parts as they arrive, and nothing before the first."""

    def __init__(
        self,
        parts: AsyncGenerator[bytes],
        *,
        content_type: str = "application/x-ndjson",
        failed: Callable[[str], bytes] = failed_line,
    ) -> None:
        """Send `parts`; what `failed` returns is the last one after a failure midway."""
        self._parts = parts
        self._content_type = content_type
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        started = False
        try:
            async with aclosing(self._parts) as parts:
                async for part in parts:
                    if not started:
                        started = True
                        headers = [(b"content-type", self._content_type.encode())]
                        await send(
                            {"type": "http.response.start", "status": 200, "headers": headers}
                        )
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        except EngineError as error:
            if not started:
                raise
            await send(
                {
                    "type": "http.response.body",
                    "body": self._failed(str(error)),
                    "more_body": True,
                }
            )
        await send({"type": "http.response.body"})


def check(asked: Asked) -> None:
    """Raise EngineError if the model is another one, or cannot do what is asked."""
    check_model(asked.model)
    if asked.think:
        raise EngineError(f'"{asked.model}" does not support thinking', 400)


def check_model(name: str) -> None:
    """Raise EngineError, a 404, if the model is not the built-in one."""
    if name.lower() != NAME:
        raise EngineError(f"model '{name}' not found", 404)


def templated(messages: Sequence[ChatMessage]) -> str:
    """Return `messages`, and the start of the answer, in ChatML, the model's template."""
    images = 0
    turns = []
    for message in messages:
        marks = [f"[img-{images + index}]" for index in range(len(message.images or ()))]
        images += len(marks)
        text = "".join((*marks, message.content))
        turns.append(f"<|im_start|>{message.role.lower()}\n{text}<|im_end|>\n")
    return "".join((*turns, "<|im_start|>assistant\n"))


def _check(follows_schema: bool) -> None:
    """Fail like Ollama on a schema that it cannot use; llama.cpp would just ignore it."""
    if not follows_schema:
        raise EngineError("invalid JSON schema in format")


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return True


def _figures(end: Piece, duration_ns: int) -> dict[str, Any]:
    return {
        "done": True,
        "done_reason": "length" if end.stop_type == "limit" else "stop",
        "total_duration": duration_ns,
        "load_duration": 0,  # the model is always loaded
        "prompt_eval_count": end.tokens_evaluated,
        "prompt_eval_duration": int(end.timings.prompt_ms * _NS_PER_MS),
        "eval_count": end.tokens_predicted,
        "eval_duration": int(end.timings.predicted_ms * _NS_PER_MS),
    }
