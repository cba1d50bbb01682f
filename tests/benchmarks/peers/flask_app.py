"""The original's stack: Flask and requests, under threaded gunicorn."""

import json
import os
from collections.abc import Iterator
from typing import Any

import requests
from flask import Flask, Response, jsonify, request

URL = os.environ["OLLAMA_BASE_URL"] + "/api/chat"
app = Flask(__name__)


def request_to_ollama(data: dict[str, Any], *, stream: bool) -> dict[str, Any]:
    messages = [{"role": "user", "content": data["message"]}]
    return {"model": data["model"], "messages": messages, "stream": stream}


@app.post("/api/chat")
def chat() -> Response:
    data = request.get_json()
    body = request_to_ollama(data, stream=False)
    answer = requests.post(URL, json=body, timeout=300).json()
    return jsonify(
        success=True,
        response=answer["message"]["content"],
        model=data["model"],
        done=answer["done"],
        context=[],
    )


@app.post("/api/chat/stream")
def chat_stream() -> Response:
    data = request.get_json()
    body = request_to_ollama(data, stream=True)

    def lines() -> Iterator[str]:
        with requests.post(URL, json=body, stream=True, timeout=300) as answer:
            for line in answer.iter_lines():
                chunk = json.loads(line)
                token = {"response": chunk["message"]["content"], "done": chunk["done"]}
                if chunk["done"]:
                    token["context"] = []
                yield json.dumps(token) + "\n"

    return Response(lines(), mimetype="application/x-ndjson")
