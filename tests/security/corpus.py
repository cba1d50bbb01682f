"""Every attack on the gate at byte level: what is sent, and the statuses that come back.

Each line is sent twice: to a gate that lets nobody in without a key, and to one that lets this
machine in. A new attack is a new line.
"""

GET = b"GET /api/models HTTP/1.1\r\n"
HOST = b"Host: localhost\r\n"
ENDS = b"Connection: close\r\n\r\n"
POST = b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

PATHS: list[tuple[bytes, int, int]] = [
    (b"/api/health/../models", 401, 404),
    (b"/api/health/..%2fmodels", 401, 404),
    (b"/api/health%2f..%2fmodels", 401, 404),
    (b"/api/health;/models", 401, 404),
    (b"/api/health%00", 401, 404),
    (b"/api/health%0d%0aX-Injected:%201", 401, 404),
    (b"//api/health", 401, 404),
    (b"/API/HEALTH", 401, 404),
    (b"/api/models?/api/health", 401, 200),
    (b"/api/models#/api/health", 401, 200),
    (b"*", 401, 404),
    (b"/api/../metrics", 401, 404),
    (b"/api/chat/../../metrics", 401, 404),
    (b"/%6detrics", 401, 200),
    (b"//metrics", 401, 404),
    (b"/static/../../core/settings.py", 404, 404),
    (b"/static/..%2f..%2fcore/settings.py", 404, 404),
    (b"/static%2f..%2f..%2fcore", 401, 404),
    (b"/.env", 401, 404),
    (b"/API/MODELS", 401, 404),
    (b"/api/models%2f", 401, 404),
    (b"/metrics;x", 401, 404),
    (b"/metrics%00", 401, 404),
    (b"/api%2fstats", 401, 404),
    (b"/api%2Fstats", 401, 404),
    (b"/api%252fstats", 401, 404),
    (b"/api/stats%2F", 401, 404),
    (b"%2fapi%2fstats", 400, 400),
    (b"/api/%ed%a0%80", 401, 404),
    (b"/api/\\..\\stats", 401, 404),
    (b"http://localhost/api/stats", 401, 200),
    (b"/" + b"a" * 70_000, 400, 400),
    (b"/v1%2fmodels", 401, 404),
    (b"/v1/../api/stats", 401, 404),
    (b"/V1/models", 401, 404),
    (b"/v1//models", 401, 404),
    (b"/v1/models;x", 401, 404),
    (b"/v1/models%00", 401, 404),
    (b"/v1/models/%00", 401, 404),
    (b"/v1/models/", 401, 200),
    (b"/v1/models/..%2f..%2fapi%2fstats", 401, 404),
    (b"/v1/models/../../metrics", 401, 404),
    (b"/v1/models/a%0d%0aX-Injected:%201", 401, 404),
    (b"/v1/models/%ed%a0%80", 401, 404),
    (b"/v1/models/*", 401, 404),
    (b"/v1/models/https://evil.example/a", 401, 404),
    (b"/v1/files", 401, 404),
]
"""Of a GET: none gets past the gate, and only the plain ones reach an endpoint."""

LINES: list[tuple[bytes, int, int]] = [
    (b"X-API-Key: a\r\n b: folded", 400, 400),
    (b"X-API-Key: a\rX-Injected: 1", 400, 400),
    (b"X-API-Key: a\nX-Injected: 1", 400, 400),
    (b"X-API-Key: a\x00b", 400, 400),
    (b"X-API-Key : a", 400, 400),
    (b"X-API-Key: \xe2\x80\xa8", 401, 401),
    (b"Authorization: Bearer a\r\n\tX-Injected: 1", 400, 400),
    (b"Authorization: Bearer \x1b[31m", 400, 400),
    (b"Origin: https://evil.example\rX-Injected: 1", 400, 400),
    (b"Connection: upgrade\r\nUpgrade: websocket", 401, 200),
    (b"TE: gzip, chunked", 401, 200),
    (b"Host: evil.example", 400, 400),
]
"""Of the head of a GET."""

REQUESTS: list[tuple[bytes, int, int]] = [
    # Names that DNS rebinding brings
    (GET + b"Host: evil.example\r\n" + ENDS, 400, 400),
    (GET + b"Host: evil.example\r\nX-Forwarded-Host: localhost\r\n" + ENDS, 400, 400),
    (GET + b"Host: localhost@evil.example\r\n" + ENDS, 400, 400),
    (GET + b"Host: localhost.evil.example\r\n" + ENDS, 400, 400),
    (b"GET http://localhost/api/models HTTP/1.1\r\nHost: evil.example\r\n" + ENDS, 400, 400),
    (GET + ENDS, 400, 400),
    (b"GET /api/models HTTP/1.0\r\n\r\n", 400, 400),
    # Where a request ends
    (POST + b"Content-Length: 4\r\n" + CHUNKED + b"0\r\n\r\nGET /x HTTP/1.1\r\n\r\n", 400, 400),
    (POST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\n{}xxx", 400, 400),
    (POST + b"Content-Length: 4, 4\r\n\r\n{}xx", 400, 400),
    (POST + b"Content-Length: +4\r\n\r\n{}xx", 400, 400),
    (POST + b"Content-Length: -1\r\n\r\n", 400, 400),
    (POST + b"Content-Length: 0x4\r\n\r\n{}xx", 400, 400),
    (POST + b"Content-Length: 18446744073709551616\r\n\r\n", 400, 400),
    (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 501, 501),
    (POST + b"Transfer-Encoding: gzip\r\n" + CHUNKED + b"2\r\n{}\r\n0\r\n\r\n", 501, 501),
    (POST + b"Transfer-Encoding: gzip\r\n\r\n", 501, 501),
    (POST + b"Transfer-Encoding: identity\r\n\r\n", 501, 501),
    (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, 501),
    (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400, 400),
    (POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400, 400),
    (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, 400),
    (POST + CHUNKED + b"-1\r\n\r\n", 400, 400),
    (POST + CHUNKED + b"fffffffffffffffff\r\n\r\n", 400, 400),
    (POST + CHUNKED + b'2;x="\n"\r\n{}\r\n0\r\n\r\n', 400, 400),
    (POST + CHUNKED + b"2\n{}\n0\n\n", 400, 400),
    (POST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: 44\r\n\r\n"
     b"GET /api/stats HTTP/1.1\r\nHost: localhost\r\n\r\n", 401, 400),
    # Not HTTP/1.1
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), 400, 400),
    (b"GET / HTTP/9.9\r\n\r\n", 400, 400),
    (b"GET /\r\n\r\n", 400, 400),
    (b"\r\n\r\nnonsense\r\n\r\n", 400, 400),
    (b"get /api/models HTTP/1.1\r\n" + HOST + ENDS, 400, 400),
    (b"GET  /api/models HTTP/1.1\r\n" + HOST + ENDS, 401, 200),
    (b"GET /api/models HTTP/1.1 \r\n" + HOST + ENDS, 400, 400),
    (b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n", 400, 400),
    (b"TRACE /api/models HTTP/1.1\r\n" + HOST + ENDS, 401, 405),
    # Too much of it
    (GET + HOST + b"X: " + b"a" * 200_000, 431, 431),
    (GET + HOST + b"A: b\r\n" * 40_000, 431, 431),
    (b"GET /" + b"a" * 200_000, 431, 431),
]  # fmt: skip
"""From the first byte to the last."""

JSON = b"Content-Type: application/json\r\n"
V1: list[tuple[bytes, bytes, bytes, int]] = [
    # What a foreign page may send without asking first
    (b"chat/completions", b"", b'{"model":"a"}', 415),
    (b"chat/completions", b"Content-Type: text/plain\r\n", b'{"model":"a"}', 415),
    (b"messages", b"Content-Type: text/plain;application/json\r\n", b'{"model":"a"}', 415),
    (b"responses", b"Content-Type: application/x-www-form-urlencoded\r\n", b'{"model":"a"}', 415),
    (b"embeddings", b"Content-Type: multipart/form-data\r\n", b'{"model":"a"}', 415),
    # Not a JSON object in UTF-8
    (b"completions", JSON, b"", 400),
    (b"completions", JSON, b"[]", 400),
    (b"completions", JSON, b'{"model":"\xff"}', 400),
    (b"completions", JSON, b'{"prompt":"\\ud800"}', 400),
    (b"completions", JSON, b'{"\\ud800":1}', 400),
    (b"completions", JSON + b"Content-Encoding: gzip\r\n", b"\x1f\x8b\x08\x00", 400),
    (b"completions", JSON, b'{"temperature":NaN}', 400),
    (b"completions", JSON, b'{"temperature":1e999}', 400),
    (b"completions", JSON, b'{"max_tokens":1e400}', 400),
    (b"completions", JSON, b'{"seed":' + b"9" * 5000 + b"}", 400),
    (b"completions", JSON, b'{"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}", 400),
    (b"messages", JSON, b'{"messages":' + b"[" * 900 + b"]" * 900 + b"}", 400),
    # Names of models
    (b"messages", JSON, b'{"model":"a\\n"}', 400),
    (b"messages", JSON, b'{"model":"a\\u0000b"}', 400),
    (b"messages", JSON, b'{"model":"//evil.example/a"}', 400),
    (b"messages", JSON, b'{"model":"' + b"a" * 256 + b'"}', 400),
    (b"messages", JSON, b'{"model":"a","MODEL":"b"}', 400),
    (b"messages", JSON, b'{"model":"gpt-oss:120b-cloud"}', 403),
    # What Ollama would fetch
    (b"chat/completions", JSON, b'{"messages":[{"content":[{"image_url":"http://[::1]/"}]}]}', 400),
    (b"responses", JSON, b'{"input":[{"content":[{"IMAGE_URL":{"Url":"file:///etc"}}]}]}', 400),
    (b"messages", JSON, b'{"messages":[{"content":[{"source":{"url":"//a"}}]}]}', 400),
]
"""Of a POST to a path of /v1: its headers and body, and the status for those who may call."""

SPOOFS = [
    *(
        (name, value)
        for name in (
            "X-Forwarded-For",
            "X-Real-IP",
            "X-Client-IP",
            "True-Client-IP",
            "CF-Connecting-IP",
            "X-Original-Forwarded-For",
            "X-Envoy-External-Address",
        )
        for value in ("127.0.0.1", "::1", "127.0.0.1, 127.0.0.1", "[::1]:80", "::ffff:127.0.0.1")
    ),
    ("Forwarded", "for=127.0.0.1;proto=https"),
    ("X-Amzn-Request-Context", '{"http": {"sourceIp": "127.0.0.1"}}'),
    ("X-Forwarded-Host", "localhost"),
]
"""Headers with which a stranger claims to be local."""

ORIGINS = [
    "https://evil.example",
    "null",
    "https://chat.example.com.evil.example",
    "https://evilchat.example.com",
    "https://chat.example.com:444",
    "http://chat.example.com",
    "https://chat.example.com/",
    "https://chat.example.com, https://evil.example",
    "*",
]
"""Origins that are not https://chat.example.com."""
