"""The original's stack: Flask and requests, under threaded gunicorn."""

import json
import os
from collections.abc import Iterator

import requests
from flask import Flask, Response, jsonify, request

URL = os.environ["OLLAMA_BASE_URL"] + "/api/generate"
app = Flask(__name__)


@app.post("/api/chat")
def chat() -> Response:
    data = request.get_json()
    body = {"model": data["model"], "prompt": data["message"], "stream": False}
    answer = requests.post(URL, json=body, timeout=300).json()
    return jsonify(
        success=True,
        response=answer["response"],
        model=data["model"],
        done=answer["done"],
        context=answer["context"],
    )


@app.post("/api/chat/stream")
def chat_stream() -> Response:
    data = request.get_json()
    body = {"model": data["model"], "prompt": data["message"], "stream": True}

    def lines() -> Iterator[str]:
        with requests.post(URL, json=body, stream=True, timeout=300) as answer:
            for line in answer.iter_lines():
                chunk = json.loads(line)
                token = {"response": chunk["response"], "done": chunk["done"]}
                if chunk["done"]:
                    token["context"] = chunk["context"]
                yield json.dumps(token) + "\n"

    return Response(lines(), mimetype="application/x-ndjson")
