"""The server gets what each generation of PowerShell sends, byte for byte."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace

import httpx
import pytest
import pytest_asyncio

from core.keys.editing import create
from tests.clients.powershell.calls import Script
from tests.clients.powershell.documents import CALLING
from tests.clients.powershell.syntax import parse
from tests.clients.powershell.wire import (
    CONTINUE_S,
    GENERATIONS,
    POWERSHELL_7_2,
    POWERSHELL_7_4,
    WINDOWS_POWERSHELL,
    Answer,
    Call,
    Connection,
    Generation,
)
from tests.fake_ollama import FakeOllama, error, tokens
from tests.processes import bundle

pytestmark = pytest.mark.asyncio(loop_scope="module")

HANGUL = "안녕하세요!"
JSON = "application/json"
UTF_8 = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson; charset=utf-8"
MAX_BODY_BYTES = 2000
each_generation = pytest.mark.parametrize(
    "generation", GENERATIONS, ids=lambda generation: generation.version
)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def ollama() -> AsyncIterator[FakeOllama]:
    async with FakeOllama() as ollama:
        ollama.default = tokens(["안녕", "하세요", "!"])
        yield ollama


@dataclass(frozen=True)
class Bundle:
    """The server and a key for it."""

    url: str
    spent_key: str
    """A key that has used up its rate."""


@pytest.fixture(scope="module")
def served(ollama: FakeOllama, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    environ = {
        "API_KEYS_FILE": str(path),
        "AUTH_FAILURE_LIMIT": "off",
        "MAX_BODY_BYTES": str(MAX_BODY_BYTES),
        "RATE_LIMIT": "off",
    }
    key = create(path, "spent", rate="1/day")
    with bundle(ollama.url, **environ) as url:
        headers = {"Authorization": f"Bearer {key}"}
        answer = httpx.get(f"{url}/api/stats", headers=headers, trust_env=False)
        assert answer.status_code == 200
        yield Bundle(url, key)


def question(generation: Generation, message: str = HANGUL, path: str = "/api/chat") -> Call:
    return Call(path, generation.to_json({"message": message}))


async def ask(served: Bundle, generation: Generation, call: Call) -> Answer:
    async with Connection(generation, served.url) as connection:
        return await connection.call(call)


def last_prompt(ollama: FakeOllama) -> str:
    prompt = ollama.asked()[-1].json["messages"][-1]["content"]
    assert isinstance(prompt, str)
    return prompt


@each_generation
@pytest.mark.parametrize("source", CALLING.values(), ids=CALLING)
async def test_the_documented_calls_are_understood(
    served: Bundle, ollama: FakeOllama, generation: Generation, source: str
) -> None:
    async with Connection(generation, served.url) as connection:
        calls = list(Script(parse(source), generation).calls())
        assert len(calls) == source.count("Invoke-RestMethod -")
        for call in calls:
            answer = await connection.call(call)
            sent = json.loads(call.body or "{}")
            assert answer.status == (404 if sent.get("model") == "no-such-model" else 200)
            if "messages" in sent:
                asked = ollama.asked()[-1].json
                assert asked["messages"] == sent["messages"]
                assert asked["options"].items() >= sent["options"].items()
                assert asked["format"] == sent["format"]
                assert isinstance(sent["format"]["properties"]["people"], dict)
            elif sent:
                said = {
                    each["role"]: each["content"] for each in ollama.asked()[-1].json["messages"]
                }
                assert (said["user"], said.get("system")) == (sent["message"], sent.get("system"))
        assert connection.opened == 1


@each_generation
@pytest.mark.parametrize("slash", ["", "/"])
async def test_korean_arrives_in_both_directions(
    served: Bundle, ollama: FakeOllama, generation: Generation, slash: str
) -> None:
    answer = await ask(served, generation, question(generation, path=f"/api/chat{slash}"))
    assert answer.status == 200
    assert answer.headers["content-type"] == UTF_8
    assert answer.json["response"] == HANGUL
    assert last_prompt(ollama) == HANGUL


@each_generation
@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_stream_is_lines_to_split(
    served: Bundle, ollama: FakeOllama, generation: Generation, slash: str
) -> None:
    answer = await ask(served, generation, question(generation, path=f"/api/chat/stream{slash}"))
    assert answer.status == 200
    assert answer.headers["content-type"] == NDJSON
    lines = [json.loads(line) for line in re.split(r"\r?\n", answer.text) if line]
    assert "".join(line["response"] for line in lines) == HANGUL
    assert [line["done"] for line in lines] == [False, False, False, True]
    assert lines[-1]["context"]
    assert last_prompt(ollama) == HANGUL


@each_generation
@pytest.mark.parametrize("path", ["/api/health", "/api/health/", "/api/models", "/api/models/"])
async def test_questions_without_a_body_name_their_charset_too(
    served: Bundle, generation: Generation, path: str
) -> None:
    answer = await ask(served, generation, Call(path, method="GET"))
    assert (answer.status, answer.headers["content-type"]) == (200, UTF_8)


async def test_windows_powershell_is_asked_for_its_body(served: Bundle, ollama: FakeOllama) -> None:
    async with Connection(WINDOWS_POWERSHELL, served.url) as connection:
        for message in (HANGUL, "또 안녕?"):
            answer = await connection.call(question(WINDOWS_POWERSHELL, message))
            assert answer.status == 200
            assert connection.continued
            assert last_prompt(ollama) == message
        assert connection.opened == 1


async def test_a_body_may_come_before_it_is_asked_for(served: Bundle, ollama: FakeOllama) -> None:
    async with Connection(WINDOWS_POWERSHELL, served.url) as connection:
        for message in (HANGUL, "또 안녕?"):
            call = question(WINDOWS_POWERSHELL, message)
            answer = await connection.call(call, continue_s=CONTINUE_S)
            assert answer.status == 200
            assert last_prompt(ollama) == message
        assert connection.opened == 1


def refusals(served: Bundle, generation: Generation) -> list[tuple[int, Call]]:
    """Return calls that are refused before their body is read, or while it is."""
    call = question(generation)
    return [
        (401, replace(call, headers={"Authorization": "Bearer wrong"})),
        (404, replace(call, path="/api/chart")),
        (405, replace(call, path="/api/models")),
        (413, replace(call, body=generation.to_json({"message": "가" * MAX_BODY_BYTES}))),
        (415, replace(call, content_type="application/x-www-form-urlencoded")),
        (429, replace(call, headers={"Authorization": f"Bearer {served.spent_key}"})),
    ]


@each_generation
async def test_the_next_call_is_answered_after_a_refusal(
    served: Bundle, ollama: FakeOllama, generation: Generation
) -> None:
    async with Connection(generation, served.url) as connection:
        for status, refused in refusals(served, generation):
            answer = await connection.call(refused)
            assert (answer.status, answer.json["success"]) == (status, False)
            assert not connection.continued
            message = f"{status} 다음"
            answer = await connection.call(question(generation, message))
            assert (answer.status, last_prompt(ollama)) == (200, message)
        # Without its body, nobody could tell where the next request begins.
        closed = len(refusals(served, generation)) if generation.is_framework else 0
        assert connection.opened == 1 + closed


async def test_the_next_call_is_answered_after_a_refusal_that_crossed_the_body(
    served: Bundle, ollama: FakeOllama
) -> None:
    async with Connection(WINDOWS_POWERSHELL, served.url) as connection:
        for status, refused in refusals(served, WINDOWS_POWERSHELL):
            answer = await connection.call(refused, continue_s=0)
            assert (answer.status, answer.json["success"]) == (status, False)
            message = f"{status} 다음"
            answer = await connection.call(question(WINDOWS_POWERSHELL, message))
            assert (answer.status, last_prompt(ollama)) == (200, message)
        assert not connection.was_reset


async def test_a_long_body_that_is_too_long_leaves_the_connection_in_order(
    served: Bundle, ollama: FakeOllama
) -> None:
    call = question(POWERSHELL_7_4, "가" * 1_000_000)
    async with Connection(POWERSHELL_7_4, served.url) as connection:
        assert (await connection.call(call)).status == 413
        assert (await connection.call(question(POWERSHELL_7_4))).status == 200
        assert connection.opened == 1
    assert last_prompt(ollama) == HANGUL


@each_generation
async def test_every_error_has_a_length_and_a_charset(
    served: Bundle, ollama: FakeOllama, generation: Generation
) -> None:
    call = question(generation)
    errors = [
        *refusals(served, generation),
        (400, replace(call, body="{'message': 'hi'}")),
        (400, replace(call, body=generation.to_json({"prompt": "hi"}))),
        (400, replace(call, body=generation.to_json({"message": "hi", "model": "없는 모델"}))),
        (404, replace(call, body=generation.to_json({"message": "hi", "model": "no-model"}))),
        (500, call),
    ]
    ollama.reply(error(500, "알 수 없는 오류"))
    async with Connection(generation, served.url) as connection:
        for status, failing in reversed(errors):
            answer = await connection.call(failing)
            assert answer.status == status
            assert answer.headers["content-type"] == UTF_8
            assert int(answer.headers["content-length"]) == len(answer.body) > 0
            assert answer.json["success"] is False
            assert answer.json["error"]
            if status == 429:
                assert answer.headers["retry-after"].isdecimal()


@pytest.mark.parametrize(
    ("generation", "message", "content_type"),
    [
        (WINDOWS_POWERSHELL, "caf\u00e9", "application/json; charset=iso-8859-1"),
        (POWERSHELL_7_2, "caf\u00e9", "application/json; charset=iso-8859-1"),
        (POWERSHELL_7_4, "caf\u00e9", "application/json; charset=iso-8859-1"),
        (POWERSHELL_7_4, "caf\u00e9", JSON),
        (POWERSHELL_7_4, HANGUL, JSON),
        (WINDOWS_POWERSHELL, "Hello, 2+2?", JSON),
        (WINDOWS_POWERSHELL, "똠방각하", "application/json; charset=ks_c_5601-1987"),
        (POWERSHELL_7_2, "안녕", "application/json;charset=euc-kr"),
        (WINDOWS_POWERSHELL, HANGUL, "application/json; charset=utf-16"),
        (POWERSHELL_7_2, HANGUL, "application/json;charset=UTF-8"),
    ],
)
async def test_a_body_is_read_in_its_charset(
    served: Bundle, ollama: FakeOllama, generation: Generation, message: str, content_type: str
) -> None:
    call = replace(question(generation, message), content_type=content_type)
    answer = await ask(served, generation, call)
    assert (answer.status, last_prompt(ollama)) == (200, message)


@each_generation
@pytest.mark.parametrize("content_type", [JSON, UTF_8])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
async def test_a_body_of_bytes_is_utf_8_declared_or_not_and_with_a_bom_or_not(
    served: Bundle, ollama: FakeOllama, generation: Generation, content_type: str, encoding: str
) -> None:
    body = generation.to_json({"message": HANGUL}).encode(encoding)
    answer = await ask(served, generation, Call("/api/chat", body, content_type))
    assert (answer.status, last_prompt(ollama)) == (200, HANGUL)


@pytest.mark.parametrize(
    ("generation", "body"),
    [
        (WINDOWS_POWERSHELL, '{"message": "caf\u00e9"}'),
        (POWERSHELL_7_2, '{"message": "caf\u00e9"}'),
        (WINDOWS_POWERSHELL, f'{{"message": "{HANGUL}"}}'.encode("cp949")),
        (POWERSHELL_7_4, f'{{"message": "{HANGUL}"}}'.encode("cp949")),
        (WINDOWS_POWERSHELL, f'{{"message": "{HANGUL}"}}'),
        (POWERSHELL_7_2, f'{{"message": "{HANGUL}"}}'),
        (POWERSHELL_7_2, '{"message": "한국의 수도는 어디입니까?"}'),
    ],
)
async def test_a_text_lost_for_want_of_a_charset_is_a_400_that_says_how_to_send_it(
    served: Bundle, ollama: FakeOllama, generation: Generation, body: str | bytes
) -> None:
    asked = len(ollama.asked())
    for path in ("/api/chat", "/api/chat/stream"):
        answer = await ask(served, generation, Call(path, body, JSON))
        assert answer.status == 400
        assert "; charset=utf-8" in answer.json["error"]
    assert len(ollama.asked()) == asked


async def test_question_marks_beside_words_are_a_question(
    served: Bundle, ollama: FakeOllama
) -> None:
    call = replace(question(WINDOWS_POWERSHELL, "한글 means what?"), content_type=JSON)
    answer = await ask(served, WINDOWS_POWERSHELL, call)
    assert (answer.status, last_prompt(ollama)) == (200, "?? means what?")


async def test_quotes_that_latin_1_has_made_straight_are_a_400(served: Bundle) -> None:
    call = replace(question(WINDOWS_POWERSHELL, "\u201cHi\u201d"), content_type=JSON)
    assert b'"\\"' not in WINDOWS_POWERSHELL.encode(call)
    answer = await ask(served, WINDOWS_POWERSHELL, call)
    assert answer.status == 400
    assert "not valid JSON" in answer.json["error"]
