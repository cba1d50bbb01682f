"""Answers of /api/generate: the prompt template, the lines, and how they are sent."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from starlette.types import Message, Receive, Scope, Send

from core.engine.errors import EngineError
from core.engine.llama import Llama, Piece
from core.engine.model import CONTEXT_LENGTH
from core.engine.sampling import grammar, sampling
from core.engine.schemas import GenerateLine, GenerateRequest

_NS_PER_MS = 1_000_000
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/x-ndjson")],
}

_JSON_STARTS = frozenset('{["-0123456789tfn')

_encode = msgspec.json.Encoder().encode


async def answer(llama: Llama, asked: GenerateRequest) -> AsyncGenerator[GenerateLine]:
    """Yield the lines of the answer to `asked`; the last one has the numbers, and no text.

    Raises:
        EngineError: the answer fails, at its start or later.
    """
    started = time.perf_counter_ns()
    parameters = sampling(asked.options or {}, CONTEXT_LENGTH) | grammar(asked.format)
    prompt = [*(asked.context or ()), *await llama.tokenize(_turn(asked))]
    text = ""
    async with aclosing(llama.generate(prompt, parameters)) as pieces:
        async for piece in pieces:
            if piece.content:
                if "json_schema" in parameters and not text:
                    _check(piece.content[0] in _JSON_STARTS)
                text += piece.content
                yield GenerateLine(model=asked.model, response=piece.content)
            if piece.stop:
                if "json_schema" in parameters and piece.stop_type == "eos":
                    _check(_is_json(text))
                # As in Ollama: the ids of the text that was sent, without the stop word.
                context = [*prompt, *await llama.tokenize(text)]
                yield _last_line(asked.model, context, piece, time.perf_counter_ns() - started)


async def joined(lines: AsyncGenerator[GenerateLine]) -> GenerateLine:
    """Return the whole answer as one line."""
    async with aclosing(lines):
        every = [line async for line in lines]
    return msgspec.structs.replace(every[-1], response="".join(line.response for line in every))


class LinesResponse:
    """An ASGI application that sends lines as NDJSON, and nothing before the first is ready."""

    def __init__(self, lines: AsyncGenerator[GenerateLine]) -> None:
        """Send `lines`."""
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer; a failure midway becomes its last line."""
        started = False
        try:
            async with aclosing(self._lines) as lines:
                async for line in lines:
                    if not started:
                        started = True
                        await send(_START)
                    await send(_body(line, more_body=not line.done))
        except EngineError as error:
            if not started:
                raise
            await send(_body({"error": str(error)}, more_body=False))


def _turn(asked: GenerateRequest) -> str:
    """Return the next turn in ChatML, the model's template."""
    images = "".join(f"[img-{number}]" for number in range(len(asked.images or ())))
    turn = f"<|im_start|>user\n{images}{asked.prompt}<|im_end|>\n<|im_start|>assistant\n"
    if asked.system:
        turn = f"<|im_start|>system\n{asked.system}<|im_end|>\n{turn}"
    return turn


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


def _last_line(model: str, context: list[int], end: Piece, duration_ns: int) -> GenerateLine:
    return GenerateLine(
        model=model,
        response="",
        done=True,
        done_reason="length" if end.stop_type == "limit" else "stop",
        context=context,
        total_duration=duration_ns,
        load_duration=0,  # the model is always loaded
        prompt_eval_count=end.tokens_evaluated,
        prompt_eval_duration=int(end.timings.prompt_ms * _NS_PER_MS),
        eval_count=end.tokens_predicted,
        eval_duration=int(end.timings.predicted_ms * _NS_PER_MS),
    )


def _body(line: object, *, more_body: bool) -> Message:
    return {
        "type": "http.response.body",
        "body": _encode(line) + b"\n",
        "more_body": more_body,
    }
