"""The client of llama.cpp's HTTP server, which runs the model inside this process.

Of xllamacpp's interfaces, only this one accepts and returns token ids, and stops a generation
when its reader disconnects; the callbacks (xllamacpp.Server.handle_completions) lack token ids.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
import msgspec
from msgspec import Struct

from core.engine.errors import EngineError
from core.engine.model import SLOTS, find_model, start_llama_cpp


class Timings(Struct, frozen=True):
    """How long reading the prompt and writing the answer took, in milliseconds."""

    prompt_ms: float = 0
    predicted_ms: float = 0


class Failure(Struct, kw_only=True):
    """A failure as llama.cpp reports it. `code` is an HTTP status."""

    message: str
    code: int = 500
    type: str = ""


class Piece(Struct, kw_only=True):
    """A piece of an answer, always whole characters. The last one has `stop` and the figures."""

    content: str = ""
    stop: bool = False
    stop_type: str = ""
    tokens_evaluated: int = 0
    tokens_predicted: int = 0
    timings: Timings = Timings()
    error: Failure | None = None


class Meta(Struct):
    """The facts that llama.cpp reads from the model's file. `size` is in bytes."""

    n_vocab: int
    n_ctx_train: int
    n_embd: int
    n_params: int
    size: int
    ftype: str


class _Model(Struct):
    meta: Meta


class _Models(Struct):
    data: list[_Model]


class _Tokens(Struct):
    tokens: list[int]


class _Failed(Struct):
    error: Failure


class Llama:
    """The loaded model, for any number of requests at once."""

    def __init__(self) -> None:
        """Load the model.

        Raises:
            ModelUnavailable: it is not installed, or fails to load.
        """
        self.file = find_model()
        api_key = secrets.token_urlsafe()
        self._server = start_llama_cpp(self.file, api_key)
        self._slots = asyncio.Semaphore(SLOTS)
        self._client = httpx.AsyncClient(
            base_url=self._server.listening_address,
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=httpx.Timeout(5, read=None, pool=None),  # a turn may be a long time coming
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Close the connections to llama.cpp, which itself ends with the process."""
        await self._client.aclose()

    async def meta(self) -> Meta:
        """Return the facts about the model."""
        response = await self._client.get("/v1/models")
        return msgspec.json.decode(response.content, type=_Models).data[0].meta

    async def tokenize(self, text: str) -> list[int]:
        """Return the token ids of `text`, which may contain control tokens in text form."""
        body = {"content": text, "add_special": False, "parse_special": True}
        response = await self._client.post("/tokenize", json=body)
        return msgspec.json.decode(response.content, type=_Tokens).tokens

    async def embed(self, body: dict[str, Any]) -> bytes:
        """Return llama.cpp's answer to `body`, in the form of OpenAI's embeddings.

        Raises:
            EngineError: a text is too long, or llama.cpp fails.
        """
        async with self._slots:
            response = await self._client.post("/v1/embeddings", json=body)
        if response.is_error:
            raise _error(msgspec.json.decode(response.content, type=_Failed).error)
        return response.content

    async def generate(
        self, prompt: list[int], parameters: dict[str, Any]
    ) -> AsyncGenerator[Piece]:
        """Yield what the model writes after the token ids of `prompt`.

        `parameters` are further parameters of llama.cpp's /completion. Closing this generator
        stops the generation.

        Raises:
            EngineError: the prompt is too long or has unknown token ids, a parameter is out of
                range, or llama.cpp fails.
        """
        # llama.cpp notices a disconnect only when a write fails. While it reads a long prompt,
        # it writes nothing but its progress.
        body = {"prompt": prompt, "stream": True, "return_progress": True, **parameters}
        async with (
            self._slots,
            self._client.stream("POST", "/completion", json=body) as response,
        ):
            if response.is_error:
                raise _error(msgspec.json.decode(await response.aread(), type=_Failed).error)
            async for event in _events(response):
                piece = msgspec.json.decode(event, type=Piece)
                if piece.error:
                    raise _error(piece.error)
                if piece.content or piece.stop:
                    yield piece
                if piece.stop:
                    return
        raise EngineError("an error was encountered while running the model: unexpected EOF")


async def _events(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the data of server-sent events, where U+2028 and the like do not end a line."""
    rest = b""
    async for data in response.aiter_raw():
        *events, rest = (rest + data).split(b"\n\n")
        for event in events:
            if event.startswith(b"data: "):
                yield event.removeprefix(b"data: ")


def _error(failure: Failure) -> EngineError:
    if failure.type == "exceed_context_size_error":
        return EngineError("the input length exceeds the context length", 400)
    return EngineError(failure.message, failure.code)
