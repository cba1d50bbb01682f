"""How the lines of Ollama's answers to /api/chat are read.

Nothing here does I/O; `client` feeds it. Facts about Ollama come from its source
(server/routes.go, api/types.go) up to v0.33, and the recordings in tests/recordings.
"""

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import UNSET, Struct, UnsetType

from core.contract.errors import ApiError
from core.contract.schemas import ChatAnswer, ChatRequest, StreamEnd
from core.ollama.failures import failure, incomplete, not_ollama


class OllamaMessage(Struct, frozen=True):
    """What a line says."""

    content: str = ""
    thinking: str = ""


class OllamaLine(Struct, kw_only=True):
    """A line of a streamed answer, or the whole of a plain one."""

    message: OllamaMessage = OllamaMessage()
    done: bool = False
    error: str | UnsetType = UNSET
    done_reason: str | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET


class _Content(Struct, gc=False):
    content: str


class _Token(Struct, gc=False):
    """A line with nothing but text."""

    message: _Content
    done: bool


class Lines(Struct, gc=False):
    """Lines of an answer that arrive together: pieces of text, and perhaps the last line."""

    pieces: list[str]
    end: StreamEnd | None = None


_decode_tokens = msgspec.json.Decoder(_Token).decode_lines
_decode_line = msgspec.json.Decoder(OllamaLine).decode


def read_line(text: bytes) -> OllamaLine:
    """Read one line of a streamed answer, or the whole of a plain one.

    Raises:
        OllamaError: it reports a failure, or is not from Ollama.
        BadRequest: it reports a failure that is the client's fault.
    """
    try:
        line = _decode_line(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise not_ollama() from None
    if line.error is not UNSET:
        raise failure(line.error)
    return line


def read_answer(body: bytes, chat: ChatRequest, model: str) -> ChatAnswer:
    """Read a plain answer.

    Raises:
        OllamaError: it is incomplete, reports a failure, or is not from Ollama.
        BadRequest: it reports a failure that is the client's fault.
    """
    line = read_line(body)
    if not line.done:
        raise incomplete()
    return ChatAnswer(
        response=line.message.content,
        model=model,
        done_reason=line.done_reason,
        prompt_eval_count=line.prompt_eval_count,
        eval_count=line.eval_count,
        total_duration=line.total_duration,
        thinking=line.message.thinking if chat.think else UNSET,
    )


class LineSplitter:
    r"""Splits a stream of bytes after `\n`, and nowhere else.

    U+0085 and U+2028 appear unescaped in Ollama's text, which rules out `splitlines`.
    """

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest: list[bytes] = []

    def feed(self, data: bytes) -> bytes:
        """Return the lines that `data` completes, as one block; empty if it completes none."""
        cut = data.rfind(b"\n") + 1
        if not cut:
            self._rest.append(data)
            return b""
        block, rest = data[:cut], data[cut:]
        if self._rest:
            block = b"".join((*self._rest, block))
        self._rest = [rest] if rest else []
        return block

    def is_cut(self) -> bool:
        """Return whether the remainder is the start of an object without its end."""
        rest = b"".join(self._rest)
        try:
            msgspec.json.decode(rest)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return rest.startswith(b"{")
        return False


class AnswerReader:
    """Turns the bytes of a streamed answer into the lines to send to the client."""

    __slots__ = ("_splitter", "_thinking", "finished")

    def __init__(self, *, thinking: bool) -> None:
        """Send the model's thinking with the last line if `thinking`, else omit it."""
        self.finished = False
        self._splitter = LineSplitter()
        self._thinking: list[str] | None = [] if thinking else None

    def feed(self, data: bytes) -> Iterator[Lines]:
        """Yield what `data` completes; the last line of a whole answer is a `StreamEnd`.

        Raises:
            ApiError: as for `read_line`; the lines before it have been yielded.
        """
        block = self._splitter.feed(data)
        if not block or self.finished:
            return
        tokens = self._tokens(block)
        ends = [token.done for token in tokens]
        pieces = [token.message.content for token in tokens]
        if tokens and True not in ends:
            yield Lines(pieces)
        elif tokens and True not in ends[:-1]:
            last_line = block.rstrip().rpartition(b"\n")[2]
            yield from self._feed_line_by_line(last_line, pieces[:-1])
        else:
            yield from self._feed_line_by_line(block)

    def end(self) -> Iterator[Lines]:
        """Yield the remaining lines once Ollama has closed the answer.

        Raises:
            OllamaError: the answer is incomplete. Ollama's guard against repeated tokens ends it
                like this, as does stopping the server.
        """
        if not self.finished and not self._splitter.is_cut():
            yield from self.feed(b"\n")
        if not self.finished:
            raise incomplete()

    def _tokens(self, block: bytes) -> list[_Token]:
        """Decode `block` at once; return nothing if a line needs a closer look."""
        if self._thinking is not None:
            return []
        try:
            return _decode_tokens(block)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return []

    def _feed_line_by_line(self, block: bytes, before: Sequence[str] = ()) -> Iterator[Lines]:
        lines = Lines([*before])
        try:
            for text in block.split(b"\n"):
                if text.strip() and not self.finished:
                    self._add(read_line(text), lines)
        except ApiError:
            if lines.pieces:
                yield lines
            raise
        if lines.pieces or lines.end:
            yield lines

    def _add(self, line: OllamaLine, lines: Lines) -> None:
        if self._thinking is not None:
            self._thinking.append(line.message.thinking)
        if line.message.content or not line.done:
            lines.pieces.append(line.message.content)
        if line.done:
            self.finished = True
            thinking = UNSET if self._thinking is None else "".join(self._thinking)
            lines.end = StreamEnd(
                done_reason=line.done_reason,
                prompt_eval_count=line.prompt_eval_count,
                eval_count=line.eval_count,
                total_duration=line.total_duration,
                thinking=thinking,
            )


def read_streamed_answer(body: bytes, chat: ChatRequest, model: str) -> ChatAnswer:
    """Read a streamed answer that has arrived in full.

    Raises:
        OllamaError, BadRequest: as for `read_answer`.
    """
    reader = AnswerReader(thinking=bool(chat.think))
    batches = [*reader.feed(body), *reader.end()]
    text = "".join([piece for lines in batches for piece in lines.pieces])
    assert batches[-1].end
    end = msgspec.structs.asdict(batches[-1].end)
    return ChatAnswer(**{**end, "response": text, "model": model})
