import json
from itertools import chain, pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.contract.errors import ApiError, OllamaError
from core.contract.schemas import ChatRequest, Message, Options, StreamEnd
from core.ollama.request import OllamaRequest
from core.ollama.wire import AnswerReader, LineSplitter, read_answer
from tests.recorded import MANIFEST, STREAMS, Recorded, said


def line(text: str = "", *, done: bool = False, thinking: str = "", **fields: Any) -> bytes:
    thought = {"thinking": thinking} if thinking else {}
    line = {"model": "m", **said(text, **thought), "done": done, **fields}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def read(*reads: bytes, thinking: bool = False) -> tuple[list[str | StreamEnd], str | None]:
    """Feed a reader; return the texts and the end that it yields, and its error text."""
    reader = AnswerReader(thinking=thinking)
    lines: list[str | StreamEnd] = []
    try:
        for batch in chain(*map(reader.feed, reads), reader.end()):
            assert batch.pieces or batch.end, "an empty batch would be an empty write"
            lines += batch.pieces
            lines += [batch.end] if batch.end else []
    except ApiError as error:
        return lines, str(error)
    return lines, None


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


@given(name=st.sampled_from(STREAMS), cuts=st.lists(st.integers(0, 2**20), max_size=12))
def test_any_split_of_a_recorded_stream_gives_the_same_lines(name: str, cuts: list[int]) -> None:
    body = Recorded(name, chat=True).body
    assert read(*pieces(body, cuts)) == read(body)


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_loses_nothing(name: str) -> None:
    recording = Recorded(name, chat=True)
    lines, error = read(*(text + b"\n" for text in recording.body.split(b"\n")))
    text = "".join(
        upstream["message"]["content"] for upstream in recording.lines if "message" in upstream
    )
    assert "".join(sent for sent in lines if isinstance(sent, str)) == text
    last = recording.lines[-1]
    if last.get("done"):
        assert error is None
        end = msgspec.to_builtins(lines[-1])
        assert end.pop("response") == ""
        assert end.pop("context") == []
        assert end == {name: last[name] for name in end}
    else:
        assert error is not None
        assert not any(isinstance(sent, StreamEnd) for sent in lines)
        assert last.get("error", "before it was complete") in error


@given(st.lists(st.text()), st.lists(st.integers(0, 2**20), max_size=12))
def test_any_text_survives_any_split(texts: list[str], cuts: list[int]) -> None:
    body = b"".join(map(line, texts)) + line(done=True)
    sent, error = read(*pieces(body, cuts))
    assert error is None
    assert sent[:-1] == texts


def test_text_is_split_only_at_line_feeds() -> None:
    text = "a\u0085b\u2028c\u2029d\x0b\x0c\x1ce"
    lines, _ = read(line(text))
    assert lines == [text]


def test_a_final_line_of_many_megabytes_survives_small_reads() -> None:
    text = "긴 " * 2_000_000
    final = line(text, done=True)
    lines, error = read(*(final[start : start + 4096] for start in range(0, len(final), 4096)))
    assert error is None
    assert lines == [text, StreamEnd()]


def test_text_on_the_last_line_goes_out_first() -> None:
    lines, _ = read(line("a"), line("b", done=True, done_reason="stop"))
    assert lines == ["a", "b", StreamEnd(done_reason="stop")]


def test_thinking_is_on_the_last_line_and_only_when_asked_for() -> None:
    body = line(thinking="hm") + line(thinking=", well") + line("4") + line(done=True)
    lines, _ = read(body, thinking=True)
    assert lines == ["", "", "4", StreamEnd(thinking="hm, well")]
    lines, _ = read(body)
    assert lines[-1] == StreamEnd()


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("thinking", [True, False])
def test_tokens_before_an_error_are_yielded_first(joined: bool, thinking: bool) -> None:
    reads = [line("a"), line("b"), b'{"error":"boom at 10.0.0.1:80"}\n']
    lines, error = read(b"".join(reads)) if joined else read(*reads, thinking=thinking)
    assert lines == ["a", "b"]
    assert error == "Ollama connection error: boom at [internal]"


@pytest.mark.parametrize(
    "ending",
    [b"", b"<html>\n", b'{"message":1,"done":false}\n', b"[]\n", b'{"mess', b"\xff\n", b"\n\n"],
)
def test_a_last_line_is_never_invented(ending: bytes) -> None:
    lines, error = read(line("a") + ending)
    assert lines == ["a"]
    assert error is not None
    assert error.startswith("Ollama connection error: ")


def test_nothing_after_the_last_line_is_sent() -> None:
    lines, error = read(line(done=True) + line("x"), line("y"), b"garbage\n")
    assert (lines, error) == ([StreamEnd()], None)
    lines, error = read(line("a") + line(done=True) + b"\n \n")
    assert (len(lines), error) == (2, None)


def test_a_last_line_without_a_line_feed_counts() -> None:
    lines, error = read(line("a"), line(done=True).rstrip())
    assert (len(lines), error) == (2, None)


def test_the_splitter_buffers_an_incomplete_line() -> None:
    splitter = LineSplitter()
    assert [splitter.feed(data) for data in (b"a", b"b\nc\nd", b"", b"\n", b"e\n")] == [
        b"",
        b"ab\nc\n",
        b"",
        b"d\n",
        b"e\n",
    ]


PLAIN = [
    name
    for name, request in MANIFEST.items()
    if request["path"] in {"/api/chat", "/api/generate"}
    and not Recorded(name).is_stream
    and Recorded(name).status == 200
]


@pytest.mark.parametrize("name", PLAIN)
def test_a_recorded_plain_answer_is_read(name: str) -> None:
    body = Recorded(name, chat=True).body
    upstream = json.loads(body)
    chat = ChatRequest(message="hi")
    if not upstream["done"]:
        with pytest.raises(OllamaError, match="before it was complete"):
            read_answer(body, chat, "m")
        return
    answer = read_answer(body, chat, "m")
    assert answer.response == upstream["message"]["content"]
    assert answer.eval_count == upstream.get("eval_count", msgspec.UNSET)


HI = [Message(role="user", content="hi")]


def request(chat: ChatRequest, max_predict: int = 8192) -> dict[str, Any]:
    sent = msgspec.json.encode(OllamaRequest.from_chat(chat, "m", max_predict, stream=True))
    return msgspec.json.decode(sent, type=dict[str, Any])


def test_the_upstream_request_has_only_the_intended_fields() -> None:
    assert request(ChatRequest(messages=HI, system="s"), max_predict=7) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "think": False,
        "options": {"num_predict": 7},
        "truncate": False,
        "shift": False,
    }


@pytest.mark.parametrize(
    ("wanted", "sent"), [(5, 5), (100, 100), (101, 100), (0, 100), (-1, 100), (-2, 100)]
)
def test_num_predict_is_capped(wanted: int, sent: int) -> None:
    chat = ChatRequest(messages=HI, options=Options(num_predict=wanted, temperature=0.5))
    assert request(chat, max_predict=100)["options"] == {"num_predict": sent, "temperature": 0.5}


def test_given_fields_are_sent() -> None:
    messages = [
        Message(role="user", content="hi", images=[msgspec.Raw(b'"AAAA"')]),
        Message(role="assistant", content="yes?"),
        *HI,
    ]
    sent = request(ChatRequest(messages=messages, format=msgspec.Raw(b'"json"'), think="low"))
    assert {name: sent[name] for name in ("messages", "format", "think")} == {
        "messages": [
            {"role": "user", "content": "hi", "images": ["AAAA"]},
            {"role": "assistant", "content": "yes?"},
            {"role": "user", "content": "hi"},
        ],
        "format": "json",
        "think": "low",
    }


def test_tokens_before_a_failing_last_line_are_yielded_first() -> None:
    first, last = line("a"), line(done=True, error="boom")
    assert read(first + last) == read(first, last)
    assert read(first + last)[0] == ["a"]


@pytest.mark.parametrize(
    "cut",
    [b'{"mess', b'{"message":{"content":"\xed\x95', b'{"message":{"content":"a"},"done":true'],
)
def test_an_answer_that_ends_within_a_line_is_incomplete(cut: bytes) -> None:
    lines, error = read(line("a") + cut)
    assert lines == ["a"]
    assert error is not None
    assert "ended before it was complete" in error


def test_an_error_without_a_line_feed_is_reported() -> None:
    assert read(b'{"error":"boom"}') == ([], "Ollama connection error: boom")
