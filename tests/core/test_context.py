import asyncio

import pytest
from starlette.types import Scope

from core.context import MAX_GATHERED, Caller, Record, Recorder


@pytest.mark.parametrize(
    ("patterns", "model", "allowed"),
    [
        (("llama3.1:8b",), "llama3.1:8b", True),
        (("llama3.1:8b",), "LLAMA3.1:8B", True),
        (("Llama3.1:8B",), "llama3.1:8b", True),
        (("llama3.1:8b",), "llama3.1:70b", False),
        (("llama3.1:8b",), "llama3.1", False),
        (("llama3.1",), "llama3.1:latest", True),
        (("llama3.1:latest",), "llama3.1", True),
        (("llama3.1",), "llama3.1:8b", False),
        (("qwen2.5:*",), "qwen2.5:72b", True),
        (("qwen2.5:*",), "qwen2.5", True),
        (("qwen2.5:*",), "qwen2.5-coder:7b", False),
        (("qwen*",), "qwen2.5-coder:7b", True),
        (("qwen*",), "qwen.example/library/other:7b", False),
        (("hf.co/*/*",), "hf.co/a/b:Q4", True),
        (("a", "b"), "b", True),
        (("*",), "anything", True),
        ((), "anything", False),
        (None, "anything", True),
    ],
)
def test_a_key_may_be_limited_to_models(
    patterns: tuple[str, ...] | None, model: str, allowed: bool
) -> None:
    caller = Caller(id="key:ci", name="ci", address="192.0.2.1", models=patterns)
    assert caller.may_use(model) is allowed


def new_scope() -> Scope:
    return {"type": "http", "method": "GET", "path": "/", "headers": []}


def test_a_request_is_in_flight_until_it_ends() -> None:
    seen: list[Record] = []
    recorder = Recorder(lambda *records: seen.extend(records))
    scope = new_scope()
    begun = recorder.begin(scope)
    assert (recorder.in_flight, Record.of(scope)) == (1, begun)
    recorder.end(begun)
    assert (recorder.in_flight, seen) == (0, [begun])


async def test_ended_requests_are_observed_together_while_others_run() -> None:
    seen: asyncio.Queue[tuple[Record, ...]] = asyncio.Queue()
    released: list[Record] = []
    recorder = Recorder(lambda *records: seen.put_nowait(records), release=released.append)
    running, *ended = [recorder.begin(new_scope()) for _ in range(3)]
    for record in ended:
        recorder.end(record)
    assert (seen.empty(), released) == (True, ended)
    assert await seen.get() == tuple(ended)  # in a moment
    recorder.end(running)
    assert seen.get_nowait() == (running,)


async def test_a_limited_number_of_ended_requests_waits() -> None:
    seen: list[Record] = []
    recorder = Recorder(lambda *records: seen.extend(records))
    recorder.begin(new_scope())
    ended = [recorder.begin(new_scope()) for _ in range(MAX_GATHERED + 1)]
    for record in ended:
        recorder.end(record)
    assert seen == ended[:-1]
    recorder.flush()
    assert seen == ended


async def test_the_last_one_waits_too_where_the_process_is_not_frozen() -> None:
    seen: asyncio.Queue[tuple[Record, ...]] = asyncio.Queue()
    recorder = Recorder(lambda *records: seen.put_nowait(records))
    recorder.freezes = False
    record = recorder.begin(new_scope())
    recorder.end(record)
    assert seen.empty()
    assert await seen.get() == (record,)
    recorder.draining = True  # there may be no next moment
    record = recorder.begin(new_scope())
    recorder.end(record)
    assert seen.get_nowait() == (record,)


def test_records_of_a_loop_that_has_ended_are_passed_on_with_the_next_ones() -> None:
    seen: asyncio.Queue[tuple[Record, ...]] = asyncio.Queue()
    recorder = Recorder(lambda *records: seen.put_nowait(records))
    recorder.freezes = False

    async def run() -> Record:
        record = recorder.begin(new_scope())
        recorder.end(record)
        return record

    async def run_and_see() -> tuple[Record, tuple[Record, ...]]:
        return await run(), await seen.get()

    first = asyncio.run(run())
    second, together = asyncio.run(run_and_see())
    assert together == (first, second)


async def test_nothing_is_passed_on_where_nothing_has_ended() -> None:
    seen: list[tuple[Record, ...]] = []
    Recorder(lambda *records: seen.append(records)).flush()
    assert seen == []


async def test_requests_take_turns_unless_there_is_only_one() -> None:
    recorder = Recorder()
    steps: list[str] = []

    async def run(name: str) -> None:
        for step in range(2):
            steps.append(f"{name}{step}")
            await recorder.let_others_catch_up()

    streaming, one = [recorder.begin(new_scope()) for _ in range(2)]
    recorder.begin_stream(streaming)  # nobody waits for it
    await asyncio.gather(run("a"), run("b"))
    assert steps == ["a0", "a1", "b0", "b1"]
    another = recorder.begin(new_scope())
    recorder.end(streaming)
    steps.clear()
    await asyncio.gather(run("a"), run("b"))
    assert steps == ["a0", "b0", "a1", "b1"]
    recorder.end(another)
    steps.clear()
    await asyncio.gather(run("a"), run("b"))
    assert steps == ["a0", "a1", "b0", "b1"]
    assert not one.is_stream
