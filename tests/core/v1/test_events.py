import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.contract.errors import OllamaError
from core.v1.apis import CHAT_COMPLETIONS, COMPLETIONS, MESSAGES, RESPONSES, Api
from core.v1.events import MAX_EVENT_BYTES, EventReader
from tests.recorded import Recorded

STREAMS = {
    "chat_stream": CHAT_COMPLETIONS,
    "chat_stream_usage": CHAT_COMPLETIONS,
    "chat_tools_stream": CHAT_COMPLETIONS,
    "completions_stream": COMPLETIONS,
    "messages_stream": MESSAGES,
    "responses_stream": RESPONSES,
}
BROKEN = {
    "chat_stream_runner_killed": CHAT_COMPLETIONS,
    "chat_stream_repeat_abort": CHAT_COMPLETIONS,
    "messages_stream_runner_killed": MESSAGES,
    "responses_stream_runner_killed": RESPONSES,
}


def body(name: str) -> bytes:
    return Recorded(f"v1/{name}").body


def read(api: Api, *reads: bytes, wants_usage: bool = True) -> tuple[bytes, EventReader]:
    reader = EventReader(api, wants_usage=wants_usage)
    return b"".join(block for data in reads for block in reader.feed(data)), reader


def chunk(**fields: Any) -> bytes:
    return b"data: %b\n\n" % json.dumps(fields, separators=(",", ":")).encode()


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_passes_untouched(name: str) -> None:
    passed, reader = read(STREAMS[name], body(name))
    assert passed == body(name)
    assert reader.complete


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_stream_is_never_complete(name: str) -> None:
    passed, reader = read(BROKEN[name], body(name))
    assert passed == body(name)
    assert not reader.complete


@pytest.mark.parametrize("name", STREAMS)
@given(cuts=st.lists(st.integers(0, 20_000), max_size=12))
def test_any_split_of_a_stream_gives_the_same_whole_events(name: str, cuts: list[int]) -> None:
    data = body(name)
    edges = [0, *sorted(cut % len(data) for cut in cuts), len(data)]
    reader = EventReader(STREAMS[name], wants_usage=True)
    blocks = [block for start, end in pairwise(edges) for block in reader.feed(data[start:end])]
    assert all(block.endswith(b"\n\n") for block in blocks)
    assert b"".join(blocks) == data
    assert reader.complete


@pytest.mark.parametrize(
    ("name", "written"),
    [("chat_stream_usage", 8), ("messages_stream", 16), ("responses_stream", 16)],
)
def test_the_usage_is_read(name: str, written: int) -> None:
    usage = read(STREAMS[name], body(name))[1].usage
    assert usage
    assert usage.written == written


def test_the_usage_is_read_whatever_the_answer_says() -> None:
    answer = {"status": "completed", "output": "[DONE]", "usage": {"output_tokens": 16}}
    data = b"event: response.completed\n" + chunk(response=answer)
    passed, reader = read(RESPONSES, data)
    assert passed == data
    assert reader.complete
    assert reader.usage
    assert reader.usage.written == 16


def test_a_usage_chunk_that_nobody_asked_for_is_left_out() -> None:
    data = body("chat_stream_usage")
    passed, reader = read(CHAT_COMPLETIONS, data, wants_usage=False)
    assert b'"choices":[]' in data
    assert b'"choices":[]' not in passed
    assert passed.endswith(b"data: [DONE]\n\n")
    assert reader.usage
    assert reader.usage.written == 8


def test_text_that_looks_like_an_end_is_text() -> None:
    text = 'data: [DONE]\n\nevent: message_stop\n\n"choices":[] {"error":"x"}'
    data = chunk(choices=[{"delta": {"content": text}, "finish_reason": None}])
    passed, reader = read(CHAT_COMPLETIONS, data, wants_usage=False)
    assert passed == data
    assert not reader.complete


@pytest.mark.parametrize("api", [CHAT_COMPLETIONS, MESSAGES, RESPONSES])
def test_an_error_event_is_a_failure_and_what_came_before_is_passed(api: Api) -> None:
    first = chunk(choices=[{"delta": {"content": "a"}, "finish_reason": None}])
    reader = EventReader(api, wants_usage=True)
    blocks = reader.feed(first + b'data: {"error":{"message":"out of memory"}}\n\n')
    assert next(blocks) == first
    with pytest.raises(OllamaError, match="out of memory"):
        next(blocks)


@pytest.mark.parametrize(
    "error",
    [b'data: {"error":"bad"}\n\n', b'event: error\ndata: {"type":"error","error":"bad"}\n\n'],
)
def test_an_error_is_a_failure_even_if_the_model_goes_on(error: bytes) -> None:
    token = chunk(choices=[{"delta": {"content": "a"}, "finish_reason": None}])
    for before in (b"", token):
        reader = EventReader(CHAT_COMPLETIONS, wants_usage=True)
        passed: list[bytes] = []
        with pytest.raises(OllamaError, match="bad"):
            passed += reader.feed(before + error + token + b"data: [DONE]\n\n")
        assert not reader.complete
        assert before == b"".join(passed)


def test_a_large_event_passes_whole_and_one_without_end_is_refused() -> None:
    data = chunk(choices=[{"delta": {"content": "x" * 5_000_000}, "finish_reason": None}])
    pieces = [data[start : start + 65_536] for start in range(0, len(data), 65_536)]
    assert read(CHAT_COMPLETIONS, *pieces)[0] == data
    reader = EventReader(CHAT_COMPLETIONS, wants_usage=True)
    for _ in range(MAX_EVENT_BYTES // 2**20):
        assert not list(reader.feed(b"x" * 2**20))
    with pytest.raises(OllamaError, match="exceeds"):
        list(reader.feed(b"x"))


@pytest.mark.parametrize("behind", [b"", b"\n", b"\n\n", b": done\n\n", b"\n\n: done\n\n\n"])
def test_an_end_is_seen_whatever_blanks_and_comments_follow_it(behind: bytes) -> None:
    stream = body("chat_stream") + behind
    passed, reader = read(CHAT_COMPLETIONS, stream)
    assert reader.complete
    assert passed.startswith(body("chat_stream").rstrip())


@given(cuts=st.lists(st.integers(0, 20_000), max_size=12))
def test_a_usage_chunk_is_left_out_wherever_the_stream_is_split(cuts: list[int]) -> None:
    data = body("chat_stream_usage")
    ends = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    reads = [data[start:end] for start, end in pairwise(ends)]
    passed, reader = read(CHAT_COMPLETIONS, *reads, wants_usage=False)
    assert reader.complete
    assert reader.usage
    assert reader.usage.written
    assert b'"choices":[]' not in passed
    assert passed.count(b"data: ") == data.count(b"data: ") - 1
