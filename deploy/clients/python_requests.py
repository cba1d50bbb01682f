"""Asks with requests: a whole answer, then a stream; it keeps the conversation itself."""

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import requests

URL = os.environ.get("OLLAMA_WEB_API_URL", "http://127.0.0.1:5000")

session = requests.Session()
if key := os.environ.get("OLLAMA_WEB_API_KEY"):
    session.headers["Authorization"] = f"Bearer {key}"


def post(path: str, body: dict[str, Any], *, stream: bool = False) -> requests.Response:
    """Return the answer; if it is an error, raise it with the server's own text."""
    answer = session.post(URL + path, json=body, stream=stream, timeout=330)
    if not answer.ok:
        raise RuntimeError(f"{answer.status_code}: {answer.json()['error']}")
    return answer


def chat(messages: list[dict[str, Any]], **fields: Any) -> str:
    """Return the whole answer."""
    answer: str = post("/api/chat", {"messages": messages, **fields}).json()["response"]
    return answer


def chat_stream(messages: list[dict[str, Any]], **fields: Any) -> Iterator[str]:
    """Yield the answer as it is written; it is complete unless this raises."""
    with post("/api/chat/stream", {"messages": messages, **fields}, stream=True) as answer:
        done = False
        for line in answer.iter_lines(chunk_size=None):
            event = json.loads(line)
            if "error" in event:
                raise RuntimeError(event["error"])
            yield event["response"]
            done = event["done"]
        if not done:
            raise RuntimeError("The answer was cut off")


if __name__ == "__main__":
    try:
        talk = [{"role": "user", "content": sys.argv[1] if len(sys.argv) > 1 else "안녕하세요!"}]
        first = chat(talk)
        print(first)
        talk.append({"role": "assistant", "content": first})
        talk.append({"role": "user", "content": "Say that again, please."})
        for text in chat_stream(talk):
            print(text, end="", flush=True)
        print()
    except (RuntimeError, requests.RequestException) as error:
        sys.exit(str(error))
