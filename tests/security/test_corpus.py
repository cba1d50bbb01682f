"""Sends every entry of the corpus, and checks what comes back."""

import json

import pytest

from core.settings.networks import Networks
from tests.conftest import Serve
from tests.fake_ollama import FakeOllama
from tests.security.corpus import ENDS, GET, HOST, LINES, PATHS, REQUESTS, V1
from tests.sockets import raw

ATTACKS = [
    *((b"GET " + path + b" HTTP/1.1\r\n" + HOST + ENDS, *statuses) for path, *statuses in PATHS),
    *((GET + HOST + line + b"\r\n" + ENDS, *statuses) for line, *statuses in LINES),
    *REQUESTS,
    *(
        (
            b"POST /v1/%b HTTP/1.1\r\n%b%bContent-Length: %d\r\n" % (path, HOST, head, len(body))
            + ENDS
            + body,
            401,
            status,
        )
        for path, head, body, status in V1
    ),
]


@pytest.mark.parametrize(("sent", "stranger", "local"), ATTACKS, ids=range(len(ATTACKS)))
async def test_it_gets_nowhere(
    serve: Serve, fake: FakeOllama, sent: bytes, stranger: int, local: int
) -> None:
    for anonymous, status in (("none", stranger), ("127.0.0.0/8", local)):
        networks = {
            "anonymous_clients": Networks(anonymous),
            "monitor_clients": Networks(anonymous),
        }
        answer = await raw(await serve(**networks), sent)
        assert answer.startswith(b"HTTP/1.1 %d " % status), sent[:200]
        assert answer.count(b"HTTP/1.1 ") == 1, "one request has one answer"
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"njected" not in head
        if status != 200:
            assert b"content-type: application/json; charset=utf-8" in head.lower()
            error = json.loads(body)  # /v1 has OpenAI's and Anthropic's shapes
            assert error.get("success") is False or error["error"]["message"]
    posts = {request.path for request in fake.requests if request.method == "POST"}
    assert posts <= {"/api/show"}
