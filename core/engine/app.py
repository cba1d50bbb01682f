"""The engine's HTTP interface: the Ollama endpoints that `core.ollama` calls."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from core.contract.responses import JSONResponse
from core.engine import embeddings, messages, responses, v1
from core.engine.answers import (
    StreamResponse,
    chatted,
    check,
    check_model,
    encoded,
    generated,
    joined,
)
from core.engine.bodies import decode
from core.engine.disconnect import DisconnectMiddleware
from core.engine.errors import EngineError
from core.engine.llama import Llama, Meta
from core.engine.local import LocalOnlyMiddleware
from core.engine.model import CONTEXT_LENGTH, NAME, PARAMETERS
from core.engine.schemas import (
    ChatLine,
    ChatMessage,
    ChatRequest,
    GenerateLine,
    GenerateRequest,
    LoadedModel,
    ModelDetails,
    Show,
    ShowRequest,
    Tag,
)

VERSION = "0.24.0+embedded"
"""The Ollama version that the engine imitates, marked as not being Ollama itself."""

TEMPLATE = (
    "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
    "<|im_start|>assistant\n"
)
"""The model's template, ChatML, in the language of Ollama's Modelfile."""
STOP_WORDS = ("<|im_start|>", "<|im_end|>")

_PLAIN_TEXTS = {404: "404 page not found", 405: "405 method not allowed"}


async def root(request: Request) -> PlainTextResponse:
    """GET /."""
    return PlainTextResponse("Ollama is running")


async def version(request: Request) -> JSONResponse:
    """GET /api/version."""
    return JSONResponse({"version": VERSION})


async def tags(request: Request) -> JSONResponse:
    """GET /api/tags: the only model."""
    llama: Llama = request.app.state.llama
    stat = llama.file.path.stat()
    tag = Tag(
        name=NAME,
        model=NAME,
        modified_at=datetime.fromtimestamp(stat.st_mtime, UTC),
        size=stat.st_size,
        digest=llama.file.digest,
        details=_details(await llama.meta()),
    )
    return JSONResponse({"models": [tag]})


async def ps(request: Request) -> JSONResponse:
    """GET /api/ps: the same model, which is always loaded."""
    llama: Llama = request.app.state.llama
    meta = await llama.meta()
    loaded = LoadedModel(
        name=NAME,
        model=NAME,
        size=meta.size,
        digest=llama.file.digest,
        details=_details(meta),
        context_length=CONTEXT_LENGTH,
    )
    return JSONResponse({"models": [loaded]})


async def show(request: Request) -> JSONResponse:
    """POST /api/show."""
    llama: Llama = request.app.state.llama
    asked = decode(await request.body(), ShowRequest)
    if not (asked.model or asked.name):
        raise EngineError("model is required", 400)
    check_model(asked.model or asked.name)
    meta = await llama.meta()
    parameters = [
        *(("stop", f'"{word}"') for word in STOP_WORDS),
        *((name, f"{value:g}") for name, value in PARAMETERS.items()),
    ]
    lines = "".join(f"PARAMETER {name} {value}\n" for name, value in parameters)
    known = Show(
        modelfile=f'FROM {NAME}\nTEMPLATE """{TEMPLATE}"""\n{lines}',
        parameters="\n".join(f"{name:30} {value}" for name, value in parameters),
        template=TEMPLATE,
        details=_details(meta),
        model_info={
            "general.architecture": "llama",
            "general.basename": NAME.partition(":")[0],
            "general.parameter_count": meta.n_params,
            "general.size_label": NAME.partition(":")[2].upper(),
            "general.type": "model",
            "llama.context_length": meta.n_ctx_train,
            "llama.embedding_length": meta.n_embd,
            "llama.vocab_size": meta.n_vocab,
        },
        modified_at=datetime.fromtimestamp(llama.file.path.stat().st_mtime, UTC),
    )
    return JSONResponse(known)


async def generate(request: Request) -> StreamResponse | JSONResponse:
    """POST /api/generate."""
    asked = decode(await request.body(), GenerateRequest)
    check(asked)
    if not asked.prompt:
        return JSONResponse(
            GenerateLine(model=asked.model, response="", done=True, done_reason="load")
        )
    lines = generated(request.app.state.llama, asked)
    if asked.stream is False:
        return JSONResponse(await joined(lines))
    return StreamResponse(encoded(lines))


async def chat(request: Request) -> StreamResponse | JSONResponse:
    """POST /api/chat."""
    asked = decode(await request.body(), ChatRequest)
    check(asked)
    if not asked.messages:
        nothing = ChatMessage(role="assistant", content="")
        return JSONResponse(
            ChatLine(model=asked.model, message=nothing, done=True, done_reason="load")
        )
    lines = chatted(request.app.state.llama, asked)
    if asked.stream is False:
        return JSONResponse(await joined(lines))
    return StreamResponse(encoded(lines))


def create_app(llama: Llama) -> Starlette:
    """Return the application in front of `llama`."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with aclosing(llama):
            yield

    app = Starlette(
        routes=[
            Route("/", root),
            Route("/api/version", version),
            Route("/api/tags", tags),
            Route("/api/ps", ps),
            Route("/api/show", show, methods=["POST"]),
            Route("/api/generate", generate, methods=["POST"]),
            Route("/api/chat", chat, methods=["POST"]),
            *v1.routes,
            *embeddings.routes,
            *messages.routes,
            *responses.routes,
        ],
        middleware=[Middleware(LocalOnlyMiddleware), Middleware(DisconnectMiddleware)],
        exception_handlers={
            EngineError: _failed,
            RecursionError: _too_deep,
            404: _plain,
            405: _plain,
        },
        lifespan=lifespan,
    )
    app.state.llama = llama
    return app


def _details(meta: Meta) -> ModelDetails:
    return ModelDetails(parameter_size=f"{meta.n_params / 1e6:.2f}M", quantization_level=meta.ftype)


async def _failed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, EngineError)
    if request.url.path.startswith("/v1/"):
        return JSONResponse(v1.failure(str(error), error.status), error.status)
    return JSONResponse({"error": str(error)}, error.status)


async def _too_deep(request: Request, error: Exception) -> JSONResponse:
    return await _failed(request, EngineError("exceeded max depth", 400))


async def _plain(request: Request, error: Exception) -> PlainTextResponse:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(_PLAIN_TEXTS[error.status_code], error.status_code, error.headers)
