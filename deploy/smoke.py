"""Checks a deployment from outside: `python -m deploy.smoke URL --key KEY`.

It makes the four calls, reads a stream, sends Korean, asks for an answer that takes a while, and
tries a key that is wrong. Every check prints one line; the exit code is 1 if one has failed.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

HANGUL = "안녕하세요! 한국어로 짧게 대답해 주세요."
LONG = "Write a story of two thousand words about a lighthouse."
CALL_S = 310
"""Longer than a deployment may take, so that its own error arrives."""
WRONG_KEY = "owa" + "0" * 72


class Failed(Exception):
    """A check has failed; the text says what came instead of what was expected."""


class Smoke:
    """The checks, in their order; each returns what to print behind its name."""

    def __init__(self, client: httpx.Client, *, long_tokens: int) -> None:
        """Call by `client`, which has the URL and the key; 0 `long_tokens` skips the long one."""
        self.client = client
        self.long_tokens = long_tokens

    def checks(self) -> list[tuple[str, Callable[[], str]]]:
        """Return the name and the function of every check."""
        long = [("a long answer", self.long_answer)] if self.long_tokens else []
        return [
            ("GET /api/health", self.health),
            ("GET /api/models", self.models),
            ("POST /api/chat", self.chat),
            ("POST /api/chat/stream", self.stream),
            *long,
            ("a wrong key", self.wrong_key),
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
        """Korean goes there and an answer comes back."""
        body = self._json("POST", "/api/chat", json={"message": HANGUL})
        if not str(body.get("response", "")).strip() or body.get("done") is not True:
            raise Failed(f"no complete answer: {body}")
        return f"{body.get('model')} says {body['response'].strip()[:40]!r}"

    def stream(self) -> str:
        """The lines come while the model writes, and the last one has the context."""
        began, arrivals, last = time.monotonic(), [], {}
        with self.client.stream("POST", "/api/chat/stream", json={"message": HANGUL}) as answer:
            if answer.status_code != httpx.codes.OK:
                answer.read()
                raise Failed(_explain(answer))
            for line in answer.iter_lines():
                arrivals.append(time.monotonic() - began)
                last = _object(line)
        if last.get("done") is not True or "context" not in last:
            raise Failed(f"the stream ended without its last line: {last}")
        spread = arrivals[-1] - arrivals[0]
        if len(arrivals) > 2 and spread < 0.01 * arrivals[-1]:  # noqa: PLR2004 - a token and an end
            return f"{len(arrivals)} lines, but all at once: this deployment does not stream"
        return f"{len(arrivals)} lines within {spread:.1f} s, the first after {arrivals[0]:.1f} s"

    def long_answer(self) -> str:
        """An answer of a minute comes whole."""
        began = time.monotonic()
        body = {"message": LONG, "options": {"num_predict": self.long_tokens}}
        answer = self._json("POST", "/api/chat", json=body)
        if answer.get("done") is not True:
            raise Failed(f"no complete answer: {answer}")
        return f"{answer.get('eval_count')} tokens in {time.monotonic() - began:.0f} s"

    def wrong_key(self) -> str:
        """A wrong key is refused."""
        answer = self.client.get("/api/models", headers={"X-API-Key": WRONG_KEY})
        if answer.status_code not in {401, 403}:
            raise Failed(f"it is accepted: HTTP {answer.status_code}")
        if _object(answer.text).get("success") is not False:
            raise Failed(f"its refusal is not in the one shape of errors: {answer.text[:200]}")
        return f"HTTP {answer.status_code}"

    def unknown_path(self) -> str:
        """An unknown path is a 404 in the one shape of errors, or that of an HTTP API."""
        answer = self.client.get("/api/nothing")
        if answer.status_code != httpx.codes.NOT_FOUND:
            raise Failed(f"HTTP {answer.status_code} instead of 404")
        return "HTTP 404"

    def _json(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        answer = self.client.request(method, path, **arguments)
        if answer.status_code != httpx.codes.OK:
            raise Failed(_explain(answer))
        return _object(answer.text)


def _object(text: str) -> dict[str, Any]:
    try:
        found = httpx.Response(200, text=text).json()
    except ValueError:
        raise Failed(f"the answer is not JSON: {text[:200]}") from None
    if not isinstance(found, dict):
        raise Failed(f"the answer is not an object: {text[:200]}")
    return found


def _explain(answer: httpx.Response) -> str:
    return f"HTTP {answer.status_code}: {answer.text[:300]}"


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise Failed(f"{type(error).__name__}: {error}") from None


def run(client: httpx.Client, *, long_tokens: int) -> bool:
    """Run every check, print what came of it, and return whether all went well."""
    good = True
    for name, check in Smoke(client, long_tokens=long_tokens).checks():
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
    parser.add_argument("--key", default="", help="API key; needed unless anybody may call")
    parser.add_argument(
        "--long", type=int, default=2000, metavar="TOKENS", help="of the long answer; 0 skips it"
    )
    options = parser.parse_args()
    headers = {"X-API-Key": options.key} if options.key else {}
    with httpx.Client(base_url=options.url, headers=headers, timeout=CALL_S) as client:
        sys.exit(not run(client, long_tokens=options.long))


if __name__ == "__main__":
    main()
