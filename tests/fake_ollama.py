"""A fake Ollama that answers like the recorded server, or as a test orders."""

import argparse
import asyncio
import json
import signal
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from tests.raw_server import Connection, RawServer, Reply, Request
from tests.recorded import Recorded, said

__all__ = [
    "CONTEXT",
    "TOKENS",
    "Connection",
    "FakeOllama",
    "Lockstep",
    "Reply",
    "Request",
    "after",
    "closes_before_head",
    "error",
    "never_answers",
    "page",
    "recorded",
    "resets_before_head",
    "said",
    "stalls_after",
    "tokens",
    "whole",
]

CREATED_AT = "2026-11-23T07:47:56.771624816Z"
CONTEXT = [1, 4093, 198, 1780, 314, 7042, 30]
TOKENS = ("The", " capital", " of", " France", " is", " Paris", ".")
VOCABULARY_SIZE = 49152


def tokens(
    texts: Sequence[str] = TOKENS,
    *,
    pace_s: float = 0,
    context: list[int] | None = CONTEXT,
    thinking: Sequence[str] = (),
    final_text: str = "",
    done_reason: str = "stop",
) -> Reply:
    """Answer with `texts`, one per line, or as a whole if the request does not ask for a stream."""

    async def reply(connection: Connection, request: Request) -> None:
        model = request.json["model"]
        with_context = request.path == "/api/generate" and context is not None
        figures = {
            "done_reason": done_reason,
            **({"context": context} if with_context else {}),
            "total_duration": 331542986,
            "load_duration": 41531441,
            "prompt_eval_count": 16,
            "prompt_eval_duration": 22605989,
            "eval_count": len(texts) + 1,
            "eval_duration": 263927630,
        }
        head = {"model": model, "created_at": CREATED_AT}
        if request.json.get("stream") is False:
            text = _text(request, "".join(texts) + final_text, "".join(thinking))
            await asyncio.sleep(pace_s * len(texts))
            connection.send_json(200, {**head, **text, "done": True, **figures})
            return
        lines = [{**_text(request, "", thought), "done": False} for thought in thinking]
        lines += [{**_text(request, text), "done": False} for text in texts]
        for index, line in enumerate(lines):
            await asyncio.sleep(pace_s)
            if index == 0:
                connection.send_head()
            connection.send_line({**head, **line})
        if not lines:
            connection.send_head()
        connection.send_line({**head, **_text(request, final_text), "done": True, **figures})
        connection.send_end()

    return reply


class Lockstep:
    """Answer with `texts`, one per line, each as soon as the test asks for it.

    So that a test sees whether a line waits for the next one, however slow the machine is.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._asked = asyncio.Semaphore(1)

    def next(self) -> None:
        """Send the next text, or the end after the last one; the first comes by itself."""
        self._asked.release()

    async def __call__(self, connection: Connection, request: Request) -> None:
        await self._asked.acquire()
        connection.send_head()
        model = request.json["model"]
        for text in self._texts:
            line = {"model": model, "created_at": CREATED_AT, **_text(request, text)}
            connection.send_line({**line, "done": False})
            await self._asked.acquire()
        connection.send_line({"model": model, **_text(request, ""), "done": True})
        connection.send_end()


def _text(request: Request, text: str, thinking: str = "") -> dict[str, Any]:
    """Return the fields with the model's text, in the form of the API that `request` calls."""
    thoughts = {"thinking": thinking} if thinking else {}
    if request.path == "/api/generate":
        return {"response": text, **thoughts}
    return said(text, **thoughts)


async def no_tokens(connection: Connection, request: Request) -> None:
    """Answer a request without a prompt, which loads or unloads its model."""
    done_reason = "unload" if request.json.get("keep_alive") == 0 else "load"
    answer = {"model": request.json["model"], "created_at": CREATED_AT, **_text(request, "")}
    connection.send_json(200, {**answer, "done": True, "done_reason": done_reason})


def recorded(name: str, piece: int = 0) -> Reply:
    """Replay a recording byte for byte, in writes of `piece` bytes; end as the original did.

    To /api/chat, a recording of /api/generate is replayed in the form of /api/chat.
    """

    async def reply(connection: Connection, request: Request) -> None:
        recording = Recorded(name, chat=request.path == "/api/chat")
        size = piece or max(1, len(recording.raw))
        for start in range(0, len(recording.raw), size):
            connection.send_raw(recording.raw[start : start + size])
            await asyncio.sleep(0)
        if not recording.ended.startswith(("complete", "timeout")):
            connection.close()

    return reply


def error(status: int, text: str) -> Reply:
    async def reply(connection: Connection, request: Request) -> None:
        connection.send_json(status, {"error": text})

    return reply


def whole(status: int, content_type: str, body: bytes, *headers: str) -> Reply:
    """Answer with any body, sent in one write."""

    async def reply(connection: Connection, request: Request) -> None:
        connection.send(status, content_type, body, *headers)

    return reply


def page(status: int, body: bytes = b"<html><h1>Bad Gateway</h1></html>", *headers: str) -> Reply:
    """Answer as a relay does when its upstream is down."""
    return whole(status, "text/html", body, *headers)


async def never_answers(connection: Connection, request: Request) -> None:
    await connection.hang()


async def closes_before_head(connection: Connection, request: Request) -> None:
    connection.close()


async def resets_before_head(connection: Connection, request: Request) -> None:
    connection.reset()


def after(count: int, end: Callable[[Connection], Awaitable[None] | None]) -> Reply:
    """Send `count` tokens of a stream, then do `end`."""

    async def reply(connection: Connection, request: Request) -> None:
        connection.send_head()
        for index in range(count):
            line = {"model": request.json["model"], "created_at": CREATED_AT}
            connection.send_line({**line, **_text(request, f" {index}"), "done": False})
        await asyncio.sleep(0.02)
        ending = end(connection)
        if ending is not None:
            await ending

    return reply


def stalls_after(count: int) -> Reply:
    return after(count, Connection.hang)


COMPATIBLE = {
    "/v1/chat/completions": ("chat", "chat_stream_usage"),
    "/v1/completions": ("completions", "completions_stream"),
    "/v1/embeddings": ("embeddings", "embeddings"),
    "/v1/responses": ("responses", "responses_stream"),
    "/v1/messages": ("messages", "messages_stream"),
}
"""The recordings of a whole answer and of a stream, by path."""


async def compatible(connection: Connection, request: Request) -> None:
    """Answer as was recorded, in one write."""
    plain, stream = COMPATIBLE[request.path]
    recording = Recorded(f"v1/{stream if request.json.get('stream') else plain}")
    body = recording.body
    if stream == "completions_stream":  # recorded without, but the gateway always asks for it
        usage = b'data: {"choices":[],"usage":{"prompt_tokens":14,"completion_tokens":8}}\n\n'
        body = body.replace(b"data: [DONE]", usage + b"data: [DONE]")
    connection.send(recording.status, recording.headers["Content-Type"], body)


def refusal(body: bytes) -> str | None:
    """Return the name of the recording that refuses `body`; None if it is a JSON object."""
    if not body:
        return "err_body_empty"
    try:
        value = json.loads(body)
    except ValueError:
        return "err_bad_json"
    return None if isinstance(value, dict) else "err_body_array"


def is_local(host: str) -> bool:
    """Return whether an Ollama bound to loopback accepts a request for `host`."""
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ip_address(name).is_private
    except ValueError:
        return name in {"", "localhost"} or name.endswith((".localhost", ".local", ".internal"))


class FakeOllama(RawServer):
    """The server; `async with FakeOllama() as fake` runs it at `fake.url`."""

    def __init__(self, models: Sequence[str] = ("smollm2:135m", "llama3.1:70b")) -> None:
        super().__init__()
        self.models = list(models)
        self.loaded: set[str] = set()
        self.remote: set[str] = set()
        """The models that run in Ollama's cloud, whatever their names."""
        self.capabilities: list[str] | None = ["completion"]
        self.context_length = 2048
        """What the models were trained for; a loaded one has 2048, as in the recording."""
        self.check_host = False
        self.default: Reply = tokens()

    def reply_to(self, request: Request) -> Reply:
        host = next((value for name, value in request.headers if name.lower() == "host"), "")
        if self.check_host and not is_local(host):
            return recorded("err_host_evil")
        return self.ordered(request) or self._route(request)

    def _route(self, request: Request) -> Reply:
        routes: dict[str, tuple[str, Reply]] = {
            "/api/version": ("HEAD, GET", self._version),
            "/api/tags": ("HEAD, GET", self._tags),
            "/api/ps": ("HEAD, GET", self._ps),
            "/api/show": ("POST", self._show),
            "/api/chat": ("POST", self._chat),
            "/api/generate": ("POST", self._generate),
            **dict.fromkeys(COMPATIBLE, ("POST", compatible)),
        }
        if request.path not in routes:
            return whole(404, "text/plain", b"404 page not found")
        allowed, reply = routes[request.path]
        if request.method not in allowed.split(", "):
            return whole(405, "text/plain", b"405 method not allowed", f"Allow: {allowed}")
        return reply

    async def _version(self, connection: Connection, request: Request) -> None:
        connection.send_json(200, {"version": "0.24.0"})

    async def _tags(self, connection: Connection, request: Request) -> None:
        (model,) = json.loads(Recorded("tags_one").body)["models"]
        models = [
            {**model, "name": name, "model": name, **self._place(name)} for name in self.models
        ]
        connection.send_json(200, {"models": models})

    async def _ps(self, connection: Connection, request: Request) -> None:
        (model,) = json.loads(Recorded("ps_loaded").body)["models"]
        models = [{**model, "name": name, "model": name} for name in sorted(self.loaded)]
        connection.send_json(200, {"models": models})

    async def _show(self, connection: Connection, request: Request) -> None:
        model = request.json["model"]
        if model.lower() not in self.models:
            connection.send_json(404, {"error": f"model '{model}' not found"})
            return
        info: dict[str, Any] = {
            "general.architecture": "llama",
            "llama.context_length": self.context_length,
            "llama.vocab_size": VOCABULARY_SIZE,
        }
        can = {} if self.capabilities is None else {"capabilities": self.capabilities}
        connection.send_json(200, {"model_info": info, **can, **self._place(model)})

    def _place(self, model: str) -> dict[str, str]:
        """Return the fields that only a remote model has, since Ollama 0.12 (api/types.go)."""
        remote = {"remote_model": "gpt-oss:20b", "remote_host": "https://ollama.com:443"}
        return remote if model.lower() in self.remote else {}

    async def _generate(self, connection: Connection, request: Request) -> None:
        await self._generate_reply(request)(connection, request)

    def _generate_reply(self, request: Request) -> Reply:
        if name := refusal(request.body):
            return recorded(name)
        body = request.json
        context = body.get("context") or []
        if any(not -(2**63) <= token < 2**63 for token in context):
            return recorded("context_id_over_int64")
        if any(token % 2**32 >= VOCABULARY_SIZE for token in context):
            return closes_before_head  # 0.24 crashes on it, having cut the ids to 32 bits
        return self._answer(body, asks=bool(body.get("prompt")))

    async def _chat(self, connection: Connection, request: Request) -> None:
        await self._chat_reply(request)(connection, request)

    def _chat_reply(self, request: Request) -> Reply:
        if name := refusal(request.body):
            return recorded(name)
        return self._answer(request.json, asks=bool(request.json.get("messages")))

    def _answer(self, body: dict[str, Any], *, asks: bool) -> Reply:
        model = body.get("model", "")
        if model.lower() not in self.models:
            return error(404, f"model '{model}' not found")
        if body.get("keep_alive") == 0:
            self.loaded.discard(model.lower())
        else:
            self.loaded.add(model.lower())
        return self.default if asks else no_tokens


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--pace", type=float, default=0.02, help="seconds between tokens")
    parser.add_argument("--tokens", default="".join(TOKENS), help="the answer, split at spaces")
    arguments = parser.parse_args()
    fake = FakeOllama()
    fake.default = tokens(arguments.tokens.replace(" ", "\0 ").split("\0"), pace_s=arguments.pace)
    await fake.start(arguments.port, arguments.host)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    print(fake.url, flush=True)  # noqa: T201
    await stopped.wait()
    await fake.stop()


if __name__ == "__main__":
    asyncio.run(_main())
