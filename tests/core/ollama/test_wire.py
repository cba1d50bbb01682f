import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.contract.errors import ApiError, OllamaError
from core.contract.schemas import ChatRequest, Options, StreamEnd, StreamToken
from core.ollama.wire import AnswerReader, GenerateRequest, LineSplitter, read_answer
from tests.recorded import MANIFEST, STREAMS, Recorded


def line(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "response": "", "done": False, **fields}).encode() + b"\n"


def read(*reads: bytes, thinking: bool = False) -> tuple[list[StreamToken | StreamEnd], str | None]:
    """Feed a reader; return the lines it yields and its error text."""
    reader = AnswerReader(thinking=thinking)
    lines: list[StreamToken | StreamEnd] = []
    try:
        for data in reads:
            for batch in reader.feed(data):
                assert batch, "an empty batch would be an empty write"
                lines += batch
        for batch in reader.end():
            lines += batch
    except ApiError as error:
        return lines, str(error)
    return lines, None


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


@given(name=st.sampled_from(STREAMS), cuts=st.lists(st.integers(0, 2**20), max_size=12))
def test_any_split_of_a_recorded_stream_gives_the_same_lines(name: str, cuts: list[int]) -> None:
    body = Recorded(name).body
    assert read(*pieces(body, cuts)) == read(body)


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_loses_nothing(name: str) -> None:
    recording = Recorded(name)
    lines, error = read(*(text + b"\n" for text in recording.body.split(b"\n")))
    said = "".join(upstream.get("response", "") for upstream in recording.lines)
    assert "".join(sent.response for sent in lines) == said
    last = recording.lines[-1]
    if last.get("done"):
        assert error is None
        end = msgspec.to_builtins(lines[-1])
        assert end.pop("response") == ""
        assert end.pop("context") == last.get("context", [])
        assert end == {name: last[name] for name in end}
    else:
        assert error is not None
        assert not any(isinstance(sent, StreamEnd) for sent in lines)
        assert last.get("error", "before it was complete") in error


@given(st.lists(st.text()), st.lists(st.integers(0, 2**20), max_size=12))
def test_any_text_survives_any_split(texts: list[str], cuts: list[int]) -> None:
    lines = [{"response": text, "done": False} for text in texts]
    body = b"".join(json.dumps(each, ensure_ascii=False).encode() + b"\n" for each in lines)
    body += line(done=True, context=[1])
    sent, error = read(*pieces(body, cuts))
    assert error is None
    assert [token.response for token in sent[:-1]] == texts


def test_text_is_split_only_at_line_feeds() -> None:
    text = "a\u0085b\u2028c\u2029d\x0b\x0c\x1ce"
    body = json.dumps({"response": text, "done": False}, ensure_ascii=False).encode() + b"\n"
    lines, _ = read(body)
    assert lines == [StreamToken(text, done=False)]


def test_a_final_line_of_many_megabytes_survives_small_reads() -> None:
    final = line(done=True, context=list(range(1_000_000)))
    assert len(final) > 6_000_000
    lines, error = read(*(final[start : start + 4096] for start in range(0, len(final), 4096)))
    assert error is None
    assert isinstance(lines[-1], StreamEnd)
    assert len(lines[-1].context) == 1_000_000


def test_text_on_the_last_line_goes_out_first_and_a_missing_context_is_empty() -> None:
    lines, _ = read(line(response="a"), line(response="b", done=True, done_reason="stop"))
    assert lines == [
        StreamToken("a", done=False),
        StreamToken("b", done=False),
        StreamEnd(context=[], done_reason="stop"),
    ]


def test_thinking_is_on_the_last_line_and_only_when_asked_for() -> None:
    body = line(thinking="hm") + line(thinking=", well") + line(response="4") + line(done=True)
    lines, _ = read(body, thinking=True)
    assert [token.response for token in lines] == ["", "", "4", ""]
    assert lines[-1] == StreamEnd(context=[], thinking="hm, well")
    lines, _ = read(body)
    assert lines[-1] == StreamEnd(context=[])


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("thinking", [True, False])
def test_tokens_before_an_error_are_yielded_first(joined: bool, thinking: bool) -> None:
    reads = [line(response="a"), line(response="b"), b'{"error":"boom at 10.0.0.1:80"}\n']
    lines, error = read(b"".join(reads)) if joined else read(*reads, thinking=thinking)
    assert [token.response for token in lines] == ["a", "b"]
    assert error == "Ollama connection error: boom at [internal]"


@pytest.mark.parametrize(
    "ending",
    [b"", b"<html>\n", b'{"response":1,"done":false}\n', b"[]\n", b'{"resp', b"\xff\n", b"\n\n"],
)
def test_a_last_line_is_never_invented(ending: bytes) -> None:
    lines, error = read(line(response="a") + ending)
    assert lines == [StreamToken("a", done=False)]
    assert error is not None
    assert error.startswith("Ollama connection error: ")


def test_nothing_after_the_last_line_is_sent() -> None:
    lines, error = read(line(done=True) + line(response="x"), line(response="y"), b"garbage\n")
    assert (lines, error) == ([StreamEnd(context=[])], None)
    lines, error = read(line(response="a") + line(done=True) + b"\n \n")
    assert (len(lines), error) == (2, None)


def test_a_last_line_without_a_line_feed_counts() -> None:
    lines, error = read(line(response="a"), line(done=True).rstrip())
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
    if request["path"] == "/api/generate"
    and not Recorded(name).is_stream
    and Recorded(name).status == 200
]


@pytest.mark.parametrize("name", PLAIN)
def test_a_recorded_plain_answer_is_read(name: str) -> None:
    upstream = json.loads(Recorded(name).body)
    chat = ChatRequest(message="hi")
    if not upstream["done"]:
        with pytest.raises(OllamaError, match="before it was complete"):
            read_answer(Recorded(name).body, chat, "m")
        return
    answer = read_answer(Recorded(name).body, chat, "m")
    assert answer.response == upstream["response"]
    assert answer.context == upstream.get("context", [])
    assert answer.eval_count == upstream.get("eval_count", msgspec.UNSET)


def request(chat: ChatRequest, max_predict: int = 8192) -> dict[str, Any]:
    generate = GenerateRequest.from_chat(chat, "m", max_predict, stream=True)
    result: dict[str, Any] = msgspec.to_builtins(generate)
    return result


def test_the_upstream_request_has_only_the_intended_fields() -> None:
    assert request(ChatRequest(message="hi"), max_predict=7) == {
        "model": "m",
        "prompt": "hi",
        "stream": True,
        "think": False,
        "options": {"num_predict": 7},
        "truncate": False,
    }


@pytest.mark.parametrize(
    ("wanted", "sent"), [(5, 5), (100, 100), (101, 100), (0, 100), (-1, 100), (-2, 100)]
)
def test_num_predict_is_capped(wanted: int, sent: int) -> None:
    chat = ChatRequest(message="hi", options=Options(num_predict=wanted, temperature=0.5))
    assert request(chat, max_predict=100)["options"] == {"num_predict": sent, "temperature": 0.5}


def test_given_fields_are_sent() -> None:
    chat = ChatRequest(
        message="hi",
        context=[1],
        system="s",
        format="json",
        images=["AAAA"],
        think="low",
    )
    sent = request(chat)
    assert {name: sent[name] for name in ("context", "system", "format", "images", "think")} == {
        "context": [1],
        "system": "s",
        "format": "json",
        "images": ["AAAA"],
        "think": "low",
    }


def test_tokens_before_a_failing_last_line_are_yielded_first() -> None:
    first, last = line(response="a", done=False), line(response="", done=True, error="boom")
    assert read(first + last) == read(first, last)
    assert read(first + last)[0] == [StreamToken("a", done=False)]


@pytest.mark.parametrize(
    "cut", [b'{"resp', b'{"response":"\xed\x95', b'{"response":"a","done":true']
)
def test_an_answer_that_ends_within_a_line_is_incomplete(cut: bytes) -> None:
    lines, error = read(line(response="a") + cut)
    assert lines == [StreamToken("a", done=False)]
    assert error is not None
    assert "ended before it was complete" in error


def test_an_error_without_a_line_feed_is_reported() -> None:
    assert read(b'{"error":"boom"}') == ([], "Ollama connection error: boom")
