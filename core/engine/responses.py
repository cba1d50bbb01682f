"""The engine's POST /v1/responses, translated as Ollama does (openai/responses.go)."""

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import count
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from core.contract.responses import JSONResponse
from core.engine.answers import StreamResponse, chatted, check, joined
from core.engine.bodies import decode
from core.engine.contents import text_of
from core.engine.schemas import ChatLine, ChatMessage, ChatRequest, ResponsesRequest
from core.engine.v1 import check_name, check_tools, event, failed_event

_NULL = (
    *("completed_at", "incomplete_details", "previous_response_id", "error", "usage"),
    *("max_tool_calls", "safety_identifier", "prompt_cache_key"),
)
_FIXED = {
    "object": "response",
    "status": "in_progress",
    "output": [],
    "tools": [],
    "tool_choice": "auto",
    "truncation": "disabled",
    "parallel_tool_calls": True,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "top_logprobs": 0,
    "store": False,
    "background": False,
    "service_tier": "default",
    "metadata": {},
}


async def responses(request: Request) -> StreamResponse | JSONResponse:
    """POST /v1/responses."""
    asked = decode(await request.body(), ResponsesRequest, empty="EOF")
    check_name(asked.model)
    format_ = (asked.text and asked.text.format) or {"type": "text"}
    temperature = 1 if asked.temperature is None else asked.temperature
    chat = ChatRequest(
        model=asked.model,
        messages=_messages(asked),
        format=format_.get("schema"),
        options={
            "num_predict": asked.max_output_tokens,
            "temperature": temperature,
            "top_p": asked.top_p,
        },
        think=(asked.reasoning or {}).get("effort") not in (None, "none"),
    )
    check(chat)
    check_tools(asked.tools)
    lines = chatted(request.app.state.llama, chat)
    response = {
        **dict.fromkeys(_NULL),
        **_FIXED,
        "id": _id("resp"),
        "created_at": int(time.time()),
        "model": asked.model,
        "instructions": asked.instructions,
        "text": {"format": format_},
        "top_p": 1 if asked.top_p is None else asked.top_p,
        "temperature": temperature,
        "reasoning": asked.reasoning,
        "max_output_tokens": asked.max_output_tokens,
    }
    if asked.stream:
        return StreamResponse(
            _events(response, lines), content_type="text/event-stream", failed=failed_event
        )
    line = await joined(lines)
    return JSONResponse(_completed(response, _item(_id("msg"), line.message.content), line))


def _messages(asked: ResponsesRequest) -> list[ChatMessage]:
    items = asked.input
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]
    said = [(str(item.get("role") or "tool"), text_of(item)) for item in items]
    return [
        ChatMessage(role=role, content=text)
        for role, text in [("system", asked.instructions or ""), *said]
        if text
    ]


def _completed(response: dict[str, Any], item: dict[str, Any], line: ChatLine) -> dict[str, Any]:
    read, written = line.prompt_eval_count or 0, line.eval_count or 0
    usage = {
        "input_tokens": read,
        "output_tokens": written,
        "total_tokens": read + written,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    end = {"completed_at": int(time.time()), "status": "completed", "usage": usage}
    return {**response, **end, "output": [item]}


def _item(id_: str, text: str) -> dict[str, Any]:
    message = {"id": id_, "type": "message", "status": "completed", "role": "assistant"}
    return {**message, "content": [_part(text)]}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _id(prefix: str) -> str:
    return f"{prefix}_{secrets.randbelow(10**6)}"


async def _events(
    response: dict[str, Any], lines: AsyncGenerator[ChatLine]
) -> AsyncGenerator[bytes]:
    numbers = count()

    def numbered(kind: str, **fields: Any) -> bytes:
        return event(f"response.{kind}", **fields, sequence_number=next(numbers))

    id_, text = _id("msg"), ""
    at: dict[str, Any] = {"output_index": 0, "content_index": 0, "item_id": id_}
    begun = {**_item(id_, ""), "status": "in_progress", "content": []}
    start = numbered("created", response=response) + numbered("in_progress", response=response)
    start += numbered("output_item.added", item=begun, output_index=0)
    start += numbered("content_part.added", part=_part(""), **at)
    async with aclosing(lines):
        async for line in lines:
            if said := line.message.content:
                text += said
                start += numbered("output_text.delta", delta=said, logprobs=[], **at)
            yield start
            start = b""
    item = _item(id_, text)
    yield numbered("output_text.done", text=text, logprobs=[], **at)
    yield numbered("content_part.done", part=_part(text), **at)
    yield numbered("output_item.done", item=item, output_index=0)
    yield numbered("completed", response=_completed(response, item, line))


routes = [Route("/v1/responses", responses, methods=["POST"])]
