"""Checks a deployment from outside: `python -m deploy.smoke URL --key KEY`.

It makes the four calls, reads a stream, sends Korean, requests an answer that takes a minute, and
tries a wrong key, request and path. Every check prints one line; the exit code is 1 if one fails.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

HANGUL = "안녕하세요! 한국어로 짧게 대답해 주세요."
LONG = "Count from 1 to 100000 in words, one number on each line. Leave none out, and do not stop."
PACE_TOKENS = 64
"""How many tokens to measure a model's pace with."""
MARGIN = 1.5
HTTP_API_NOT_FOUND = {"message": "Not Found"}
"""The answer of AWS' HTTP APIs to an unknown path; it cannot be changed."""
CALL_S = 310
"""Longer than a deployment may take, so that its own error arrives."""
WRONG_KEY = "owa" + "0" * 72


class Failed(Exception):
    """A check has failed; the text says what arrived instead of what was expected."""


class Smoke:
    """The checks, in order; each returns what to print after its name."""

    def __init__(self, client: httpx.Client, *, long_s: float) -> None:
        """Call through `client`, which has URL and key; 0 `long_s` skips the long answer."""
        self.client = client
        self.long_s = long_s

    def checks(self) -> list[tuple[str, Callable[[], str]]]:
        """Return the name and the function of every check."""
        long = [("a long answer", self.long_answer)] if self.long_s else []
        return [
            ("GET /api/health", self.health),
            ("GET /api/models", self.models),
            ("POST /api/chat", self.chat),
            ("POST /api/chat/stream", self.stream),
            *long,
            ("a wrong key", self.wrong_key),
            ("a wrong request", self.wrong_request),
            ("an unknown path", self.unknown_path),
        ]

    def health(self) -> str:
        """Ollama is connected."""
        body = self._json("GET", "/api/health")
        if body.get("ollama_status") != "connected":
            raise Failed("Ollama is disconnected. Try python -m deploy.tunnel.check")
        return f"version {body.get('api_version')}"

    def models(self) -> str:
        """There is a model."""
        body = self._json("GET", "/api/models")
        if not body.get("models"):
            raise Failed("no model is installed. On the Ollama machine: ollama pull llama3.1:8b")
        return ", ".join(body["models"])

    def chat(self) -> str:
        """Korean goes out, and an answer comes back."""
        body = self._json("POST", "/api/chat", json={"message": HANGUL})
        if not str(body.get("response", "")).strip() or body.get("done") is not True:
            raise Failed(f"no complete answer: {body}")
        if "\N{REPLACEMENT CHARACTER}" in body["response"]:
            raise Failed(f"its characters are broken: {body['response'][:200]!r}")
        return f"{body.get('model')} says {body['response'].strip()[:40]!r}"

    def stream(self) -> str:
        """The lines arrive while the model writes, and the last one has the context."""
        began, arrivals, last, text = time.monotonic(), [], {}, ""
        with self.client.stream("POST", "/api/chat/stream", json={"message": HANGUL}) as answer:
            if answer.status_code != httpx.codes.OK:
                answer.read()
                raise Failed(_explain(answer))
            for line in answer.iter_lines():
                arrivals.append(time.monotonic() - began)
                last = _parsed(line)
                text += str(last.get("response", ""))
        if last.get("done") is not True or "context" not in last:
            raise Failed(f"the stream ended without its last line: {last}")
        if not text.strip():
            raise Failed("the stream contains no text")
        spread = arrivals[-1] - arrivals[0]
        if len(arrivals) > 2 and spread < 0.01 * arrivals[-1]:  # noqa: PLR2004 - a token and an end
            return f"{len(arrivals)} lines, but all at once: this deployment does not stream"
        return f"{len(arrivals)} lines within {spread:.1f} s, the first after {arrivals[0]:.1f} s"

    def long_answer(self) -> str:
        """An answer that takes `long_s` arrives whole."""
        tokens, took_s = self._count(PACE_TOKENS)
        tokens, took_s = self._count(math.ceil(tokens / took_s * self.long_s * MARGIN))
        if took_s < self.long_s:
            raise Failed(
                f"the model was done after {tokens} tokens and {took_s:.0f} s, so an answer of "
                f"{self.long_s:g} s is untested. Try again, or with less: --long {took_s:.0f}"
            )
        return f"{tokens} tokens in {took_s:.0f} s"

    def _count(self, tokens: int) -> tuple[int, float]:
        """Ask for this many tokens; return how many arrived, and in how many seconds."""
        began = time.monotonic()
        body = {"message": LONG, "options": {"num_predict": tokens}}
        answer = self._json("POST", "/api/chat", json=body)
        count = answer.get("eval_count")
        if answer.get("done") is not True or not answer.get("response") or not count:
            raise Failed(f"no complete answer: {str(answer)[:200]}")
        return count, time.monotonic() - began

    def wrong_key(self) -> str:
        """A wrong key is refused."""
        return _refusal(self.client.get("/api/models", headers={"X-API-Key": WRONG_KEY}), 401)

    def wrong_request(self) -> str:
        """A request without a message is refused."""
        return _refusal(self.client.post("/api/chat", json={}), 400)

    def unknown_path(self) -> str:
        """An unknown path is a 404."""
        answer = self.client.get("/api/nothing")
        if answer.status_code == httpx.codes.NOT_FOUND and _object(answer) == HTTP_API_NOT_FOUND:
            return "HTTP 404, in the words of AWS' HTTP API"
        return _refusal(answer, 404)

    def _json(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        answer = self.client.request(method, path, **arguments)
        if answer.status_code != httpx.codes.OK:
            raise Failed(_explain(answer))
        return _object(answer)


def _object(answer: httpx.Response) -> dict[str, Any]:
    if not answer.headers.get("content-type", "").startswith("application/json"):
        raise Failed(f"the answer is not application/json: {answer.text[:200]}")
    return _parsed(answer.text)


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        raise Failed(f"the answer is not JSON: {text[:200]}") from None
    if not isinstance(found, dict):
        raise Failed(f"the answer is not an object: {text[:200]}")
    return found


def _refusal(answer: httpx.Response, status: int) -> str:
    """Return the error's text; it must have the status, and the shape of every error."""
    if answer.status_code != status:
        raise Failed(f"{_explain(answer)}, instead of {status}")
    body = _object(answer)
    text = body.get("error")
    if body != {"success": False, "error": text} or not text or not isinstance(text, str):
        raise Failed(f"HTTP {status}, but not in the shape of errors: {answer.text[:200]}")
    return f"HTTP {status}, {text[:60]!r}"


def _explain(answer: httpx.Response) -> str:
    return f"HTTP {answer.status_code}: {answer.text[:300]}"


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise Failed(f"{type(error).__name__}: {error}") from None


def run(client: httpx.Client, *, long_s: float) -> bool:
    """Run every check, print its result, and return whether all passed."""
    good = True
    for name, check in Smoke(client, long_s=long_s).checks():
        try:
            with _told():
                line = f"ok      {name}: {check()}"
        except Failed as error:
            good, line = False, f"FAILED  {name}: {error}"
        print(line, flush=True)  # noqa: T201
    return good


def main() -> None:
    """Read the command line and run the checks."""
    parser = argparse.ArgumentParser(prog="python -m deploy.smoke", description=__doc__)
    parser.add_argument(
        "url", help="such as https://abc123.execute-api.us-east-1.amazonaws.com/prod"
    )
    parser.add_argument("--key", default="", help="API key; needed unless anyone may call")
    parser.add_argument(
        "--long", type=float, default=60, metavar="SECONDS", help="of the long answer; 0 skips it"
    )
    options = parser.parse_args()
    headers = {"X-API-Key": options.key} if options.key else {}
    with httpx.Client(base_url=options.url, headers=headers, timeout=CALL_S) as client:
        sys.exit(not run(client, long_s=options.long))


if __name__ == "__main__":
    main()
