"""The engine's POST /v1/messages, translated as Ollama does (anthropic/anthropic.go)."""

import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from core.contract.responses import JSONResponse
from core.engine.answers import StreamResponse, chatted, check, joined
from core.engine.bodies import decode
from core.engine.contents import text_of
from core.engine.errors import EngineError
from core.engine.schemas import (
    ChatLine,
    ChatMessage,
    ChatRequest,
    MessagesRequest,
    OpenAIMessage,
)
from core.engine.v1 import check_name, check_tools, event, failed_event


async def messages(request: Request) -> StreamResponse | JSONResponse:
    """POST /v1/messages."""
    asked = decode(await request.body(), MessagesRequest, empty="EOF")
    check_name(asked.model)
    if asked.max_tokens < 1:
        raise EngineError("max_tokens is required and must be positive", 400)
    if not asked.messages:
        raise EngineError("messages is required", 400)
    said = [OpenAIMessage("system", asked.system)] if asked.system else []
    chat = ChatRequest(
        model=asked.model,
        messages=[
            ChatMessage(role=each.role, content=text_of(each.content))
            for each in [*said, *asked.messages]
        ],
        options={
            "num_predict": asked.max_tokens,
            "temperature": asked.temperature,
            "top_p": asked.top_p,
            "top_k": asked.top_k,
            "stop": asked.stop_sequences,
        },
        think=(asked.thinking or {}).get("type") == "enabled",
    )
    check(chat)
    check_tools(asked.tools)
    lines = chatted(request.app.state.llama, chat)
    message = {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": asked.model,
    }
    if asked.stream:
        return StreamResponse(
            _events(message, lines), content_type="text/event-stream", failed=failed_event
        )
    line = await joined(lines)
    content = [{"type": "text", "text": line.message.content}]
    return JSONResponse({**message, "content": content, **_reason(line), "usage": _usage(line)})


async def _events(
    message: dict[str, Any], lines: AsyncGenerator[ChatLine]
) -> AsyncGenerator[bytes]:
    usage = {"input_tokens": 0, "output_tokens": 0}  # the last line has the counts
    start = event("message_start", message={**message, "content": [], "usage": usage})
    start += event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    async with aclosing(lines):
        async for line in lines:
            if text := line.message.content:
                delta = {"type": "text_delta", "text": text}
                start += event("content_block_delta", index=0, delta=delta)
            yield start
            start = b""
    yield event("content_block_stop", index=0)
    yield event("message_delta", delta=_reason(line), usage=_usage(line))
    yield event("message_stop")


def _reason(line: ChatLine) -> dict[str, str]:
    return {"stop_reason": "max_tokens" if line.done_reason == "length" else "end_turn"}


def _usage(line: ChatLine) -> dict[str, int]:
    return {"input_tokens": line.prompt_eval_count or 0, "output_tokens": line.eval_count or 0}


routes = [Route("/v1/messages", messages, methods=["POST"])]
