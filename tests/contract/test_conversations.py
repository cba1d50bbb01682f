"""What users do with a conversation, with a fake and with a real model."""

import json
import struct
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from core.chat.conversation import decoded
from tests.clients.powershell.wire import WINDOWS_POWERSHELL
from tests.conftest import Serve
from tests.fake_ollama import FakeOllama, tokens
from tests.processes import bundle
from tests.programs import program

GREEDY = {"options": {"temperature": 0, "seed": 1, "num_predict": 40}}
LIMIT = 2**20


def ask(url: str, message: str, **fields: Any) -> dict[str, Any]:
    answer = httpx.post(
        f"{url}/api/chat",
        json={"message": message, **GREEDY, **fields},
        timeout=60,
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


@pytest.fixture(scope="module")
def real(engine_url: str) -> Iterator[str]:
    with bundle(engine_url, RATE_LIMIT="off") as url:
        yield url


def test_three_turns_with_a_real_model(real: str) -> None:
    first = ask(real, "What is the capital of France?")
    second = ask(real, "And of Germany?", context=first["context"])
    third = ask(real, "And of Italy?", context=second["context"])
    assert "Paris" in first["response"]
    assert "Berlin" in second["response"]
    assert "Rome" in third["response"]
    said = decoded(third["context"], LIMIT)
    assert [message.role for message in said] == ["user", "assistant"] * 3
    assert [message.content for message in said[1::2]] == [
        answer["response"] for answer in (first, second, third)
    ]


def test_a_turn_after_a_restart_with_a_real_model(engine_url: str) -> None:
    with bundle(engine_url) as url:
        first = ask(url, "What is the capital of France?")
    with bundle(engine_url) as url:
        second = ask(url, "And of Germany?", context=first["context"])
    assert "Berlin" in second["response"]


async def test_a_turn_with_another_model(serve: Serve, fake: FakeOllama) -> None:
    url = await serve()
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        fake.reply(tokens(["안녕하세요!"]))
        first = await client.post("/api/chat", json={"message": "안녕?", "model": "smollm2:135m"})
        more = {"message": "누구세요?", "context": first.json()["context"]}
        second = await client.post("/api/chat", json={**more, "model": "llama3.1:70b"})
    assert second.status_code == 200
    asked = fake.asked()[-1].json
    assert asked["model"] == "llama3.1:70b"
    assert asked["messages"] == [
        {"role": "user", "content": "안녕?"},
        {"role": "assistant", "content": "안녕하세요!"},
        {"role": "user", "content": "누구세요?"},
    ]


def powershell(text: str) -> str:
    body = WINDOWS_POWERSHELL.to_json(json.loads(text))
    return body if isinstance(body, str) else body.decode()


def jq(text: str) -> str:
    return piped([program("jq", "apt install jq"), "."], text)


def javascript(text: str) -> str:
    node = program("node", "apt install nodejs")
    convert = (
        "console.log(JSON.stringify(JSON.parse(require('fs').readFileSync(0, 'utf8')), null, 2))"
    )
    return piped([node, "-e", convert], text)


def int32_list(text: str) -> str:
    """Hold every number in a signed 32-bit integer, as a List<int> of C# does."""
    fields = json.loads(text)
    context = struct.pack(f"{len(fields['context'])}i", *fields["context"])
    return json.dumps({**fields, "context": [*memoryview(context).cast("i")]})


def doubles(text: str) -> str:
    """Read every number as a double, as older versions of jq and Lua do."""
    fields = json.loads(text, parse_int=float)
    return json.dumps({**fields, "context": [int(number) for number in fields["context"]]})


def piped(command: list[str], text: str) -> str:
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("through", [powershell, jq, javascript, int32_list, doubles])
async def test_a_turn_whose_context_came_through_a_client(
    serve: Serve, fake: FakeOllama, through: Callable[[str], str]
) -> None:
    url = await serve()
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        first = await client.post("/api/chat", json={"message": "안녕?", "system": "짧게."})
        sent = through(json.dumps({"message": "계속", "context": first.json()["context"]}))
        headers = {"Content-Type": "application/json; charset=utf-8"}
        second = await client.post("/api/chat", content=sent.encode(), headers=headers)
    assert second.status_code == 200, second.text
    texts = [message["content"] for message in fake.asked()[-1].json["messages"]]
    assert texts == ["짧게.", "안녕?", "The capital of France is Paris.", "계속"]


async def test_sixty_turns_of_korean(serve: Serve, fake: FakeOllama) -> None:
    url = await serve(rate_limit="off")
    context: list[int] = []
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        for turn in range(60):
            fake.reply(tokens([f"{turn}번째 ", "대답입니다. ", "더 궁금한 점이 있으신가요?"]))
            body = {"message": f"{turn}번째 질문입니다. 자세히 설명해 주세요.", "context": context}
            answer = await client.post("/api/chat/stream", json=body)
            assert answer.status_code == 200, answer.text
            context = json.loads(answer.text.splitlines()[-1])["context"]
    messages = fake.asked()[-1].json["messages"]
    assert len(messages) == 119
    assert messages[1]["content"] == "0번째 대답입니다. 더 궁금한 점이 있으신가요?"
    assert len(decoded(context, LIMIT)) == 120
    assert len(context) < 1000
