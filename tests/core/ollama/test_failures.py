import httpx
import msgspec
import pytest

from core.contract.errors import BadRequest, OllamaError
from core.contract.retryable import OllamaBusy
from core.ollama.failures import BUSY_RETRY_AFTER_S, failed_response, failure, says_model_is_missing


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('Post "http://127.0.0.1:36481/completion": EOF', 'Post "[internal]": EOF'),
        ("dial tcp 10.1.2.3:80: connection refused", "dial tcp [internal]: connection refused"),
        ("dial tcp [::1]:11434: connection refused", "dial tcp [internal]: connection refused"),
        ("dial tcp [fe80::1%eth0]:1: refused", "dial tcp [internal]: refused"),
        (
            "unable to load model: /root/.ollama/models/blobs/sha256-ab12",
            "unable to load model: [internal]",
        ),
        (r"open C:\Users\kim\.ollama\id_ed25519: denied", "open [internal] denied"),
        ("model library/foo:latest is broken", "model library/foo:latest is broken"),
        ('{"error":{"code":500,"message":"out of memory"}}', "out of memory"),
        ('{"message":"out of memory"}', "out of memory"),
        ("[1]", "[1]"),
        ("메모리가 부족합니다", "메모리가 부족합니다"),
    ],
)
def test_a_text_is_unwrapped_and_loses_internal_details(text: str, told: str) -> None:
    error = failure(text)
    assert isinstance(error, OllamaError)
    assert str(error) == f"Ollama connection error: {told}"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "failed to process the prompt. task id = 127, n_tokens = 9000",
            "failed to process the prompt",
        ),
        (
            "llama runner process has terminated: slot update_slots: id 0 | task 127 | done",
            "llama runner process has terminated",
        ),
        ("decode failed, task id = 127, n_past = 4, text = secret", "decode failed"),
        (
            "it failed!\nsrv  operator(): chat template\nslot launch_slot_: id 1 | task 9 | secret",
            "it failed",
        ),
        ("slot release: id 3 | task 9 | stop processing", "it failed. Its log says why"),
        ("the multitasking task is over. See 1.5", "the multitasking task is over. See 1.5"),
        ("CUDA error: out of memory\n  device: 0", "CUDA error: out of memory\n  device: 0"),
    ],
)  # fmt: skip
def test_a_text_with_lines_of_a_log_is_cut_to_its_first_sentence(text: str, told: str) -> None:
    assert str(failure(text)) == f"Ollama connection error: {told}"


@pytest.mark.parametrize(
    "text",
    [
        'option "temperature" must be of type float32',
        'invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema object',
        "detokenize error: token 60000",
    ],
)
def test_client_errors_that_ollama_calls_its_own_are_400s(text: str) -> None:
    assert isinstance(failure(text, 500), BadRequest)


@pytest.mark.parametrize(
    "text",
    [
        "the input length exceeds the context length",
        (
            '{"error":{"code":400,"message":"request (5000 tokens) exceeds the available context '
            'size (4096 tokens), try increasing it","type":"exceed_context_size_error"}}'
        ),
        "prompt too long; exceeded max context length by 904 tokens",
        "the request exceeds the available context size. task id = 127, n_tokens = 9000",
    ],
)
@pytest.mark.parametrize("status", [400, 500])
def test_a_conversation_at_the_end_of_its_window_gets_advice(text: str, status: int) -> None:
    error = failure(text, status)
    assert isinstance(error, BadRequest)
    assert "start a new conversation" in str(error)
    assert "task id" not in str(error)


@pytest.mark.parametrize(
    ("status", "body", "class_", "words"),
    [
        (
            400,
            b'{"error":"the input length exceeds the context length"}',
            BadRequest,
            "input length",
        ),
        (400, b'{"error":"{\\"error\\":{\\"message\\":\\"too long\\"}}"}', BadRequest, "too long"),
        (403, b"", OllamaError, "OLLAMA_HEADERS"),
        (403, b'{"error":"ollama cloud is disabled"}', OllamaError, "cloud is disabled"),
        (404, b"404 page not found", OllamaError, "OLLAMA_BASE_URL"),
        (301, b"", OllamaError, "OLLAMA_BASE_URL"),
        (500, b'{"error":{"message":"nested"}}', OllamaError, "nested"),
        (500, b"[]", OllamaError, "HTTP 500"),
        (500, b"\xff", OllamaError, "HTTP 500"),
        (502, b"<html><h1>502 Bad Gateway</h1></html>", OllamaError, "HTTP 502"),
        (500, b'{"error":' * 10_000, OllamaError, "HTTP 500"),
    ],
)
def test_a_failed_response_becomes_an_error(
    status: int, body: bytes, class_: type[Exception], words: str
) -> None:
    error = failed_response(httpx.Response(status), body)
    assert isinstance(error, class_)
    assert words in str(error)
    assert "<" not in str(error)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ({}, BUSY_RETRY_AFTER_S),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, BUSY_RETRY_AFTER_S),
        ({"retry-after": "-1"}, BUSY_RETRY_AFTER_S),
    ],
)
def test_busy_says_in_whole_seconds_when_to_retry(header: dict[str, str], seconds: int) -> None:
    error = failed_response(httpx.Response(503, headers=header), b"<html>")
    assert isinstance(error, OllamaBusy)
    assert error.headers["retry-after"] == str(seconds)


def test_a_relay_that_limits_requests_makes_it_busy() -> None:
    error = failed_response(httpx.Response(429, headers={"retry-after": "17"}), b"slow down")
    assert isinstance(error, OllamaBusy)
    assert (error.status, error.headers["retry-after"]) == (503, "17")
    assert "limits requests" in str(error)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("every Ollama machine of this model is down", "Ollama is not available: every Ollama"),
        ("every Ollama machine is busy, or none can be reached", "Ollama is not available"),
        ("the queue for this model is full", "Ollama is busy"),
        ("server busy, please try again.  maximum pending requests exceeded", "Ollama is busy"),
    ],
)
def test_down_is_not_called_busy(text: str, told: str) -> None:
    error = failed_response(httpx.Response(503), msgspec.json.encode({"error": text}))
    assert isinstance(error, OllamaBusy)
    assert str(error).startswith(told)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("open /Users/My Name/models/x.gguf: denied", "open [internal] denied"),
        (r"open C:\Users\My Name\.ollama\blobs\sha256-ab: no", "open [internal] no"),
        (r"open \\nas\models$\m.gguf failed", "open [internal] failed"),
        ("open ~/models/m.gguf", "open [internal]"),
        ("dial tcp [::1]:80: refused", "dial tcp [internal]: refused"),
        ("dial tcp gpu.lan:80: refused", "dial tcp [internal] refused"),
        (
            "dial tcp: lookup gpu.lan on 10.0.0.2:53: no",
            "dial tcp: lookup [internal] on [internal]: no",
        ),
        ("at 2001:db8:0:0:0:0:0:1, and at fe80::1", "at [internal], and at [internal]"),
        ('Post "HTTPS://gpu.lan/x?key=1": EOF', 'Post "[internal]": EOF'),
        ("connect to gpu-box.corp:11434 refused", "connect to [internal] refused"),
        ("tcp://gpu.corp:99/a failed", "[internal] failed"),
        (r"C:\Program Files (x86)\Ollama\x.dll is bad", "[internal] is bad"),
        (r"C:\Users\KIMCHU~1\AppData\x.dll is bad", "[internal] is bad"),
        ("at 12:34:56 std::runtime_error, face::book, 1/2, /", None),
        ("model hf.co/user/model:Q4_K_M failed, llama3.1:70b too: 404", None),
    ],
)
def test_only_internal_details_are_hidden(text: str, told: str | None) -> None:
    assert str(failure(text)) == f"Ollama connection error: {told or text}"


def test_a_long_text_is_truncated() -> None:
    failure("[" + ":" * 10_000_000)
    assert len(str(failure("x" * 100_000))) < 1000


@pytest.mark.parametrize(
    ("status", "body", "missing"),
    [
        (404, b'{"error":"model \'m\' not found"}', True),
        (404, b'{"error": "model \'m\' not found, try pulling it first"}\n', True),
        (404, b'{ "error" : "model \\"m\\" not found" , "code": 404 }', True),
        (404, b'{"error":"path not found"}', False),
        (404, b'{"error":"model m not found, or so"}', False),
        (404, b'{"error":null}', False),
        (404, b'{"errors":["model m not found"]}', False),
        (404, b'"model m not found"', False),
        (404, b"404 page not found", False),
        (404, b'{"error":"model \xff not found"}', False),
        (500, b'{"error":"model m not found"}', False),
    ],
)
def test_a_missing_model_is_distinguished_from_a_missing_page(
    status: int, body: bytes, missing: bool
) -> None:
    assert says_model_is_missing(httpx.Response(status), body) == missing
