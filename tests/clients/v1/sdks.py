"""Calls the server as one SDK for Python does, and prints the result of each call as JSON.

python sdks.py CLIENT URL KEY MODEL CALL...
"""

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pydantic

QUESTION: Any = [{"role": "user", "content": "안녕하세요!"}]
TOOL: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
PATIENCE_S, IMPATIENCE_S = 300, 1


class Capital(pydantic.BaseModel):
    """The capital of a country."""

    model_config = pydantic.ConfigDict(extra="forbid")  # or a model may go on with more properties
    capital: str = pydantic.Field(max_length=10)


class Sdk:
    """How one SDK makes each call; `retries` and `timeout` are what its users would set."""

    def __init__(
        self, url: str, key: str, model: str, retries: int = 2, timeout: float = 0
    ) -> None:
        self.url, self.key, self.model = url, key, model
        self.retries, self.timeout = retries, timeout or PATIENCE_S
        self.open()

    def open(self) -> None: ...
    def text(self) -> str: ...  # type: ignore[empty-body]
    def texts(self) -> Iterator[str]: ...  # type: ignore[empty-body]


class OpenAI(Sdk):
    def open(self) -> None:
        import openai

        self.client = openai.OpenAI(
            base_url=f"{self.url}/v1",
            api_key=self.key,
            max_retries=self.retries,
            timeout=self.timeout,
        )

    def text(self) -> str:
        chat = self.client.chat.completions
        return chat.create(model=self.model, messages=QUESTION).choices[0].message.content or ""

    def texts(self) -> Iterator[str]:
        chat = self.client.chat.completions
        with chat.create(model=self.model, messages=QUESTION, stream=True) as stream:
            for chunk in stream:
                yield chunk.choices[0].delta.content or ""

    def tool(self) -> list[Any]:
        chat = self.client.chat.completions
        answer = chat.create(model=self.model, messages=QUESTION, tools=[TOOL])
        (call,) = answer.choices[0].message.tool_calls or []
        assert call.type == "function"
        return [call.function.name, json.loads(call.function.arguments)]

    def parse(self) -> str:
        chat = self.client.chat.completions
        answer = chat.parse(model=self.model, messages=QUESTION, response_format=Capital)
        parsed = answer.choices[0].message.parsed
        assert parsed
        return parsed.capital

    def embed(self) -> list[int]:
        answer = self.client.embeddings.create(model=self.model, input=["hello", "안녕"])
        return [len(entry.embedding) for entry in answer.data]


class Completions(OpenAI):
    def text(self) -> str:
        return self.client.completions.create(model=self.model, prompt="Paris").choices[0].text

    def texts(self) -> Iterator[str]:
        create = self.client.completions.create
        with create(model=self.model, prompt="Paris", stream=True) as stream:
            for chunk in stream:
                yield chunk.choices[0].text


class Responses(OpenAI):
    def text(self) -> str:
        return self.client.responses.create(model=self.model, input="안녕").output_text

    def texts(self) -> Iterator[str]:
        with self.client.responses.create(model=self.model, input="안녕", stream=True) as stream:
            for event in stream:
                if event.type == "response.output_text.delta":
                    yield event.delta


class Anthropic(Sdk):
    def open(self) -> None:
        import anthropic

        self.client = anthropic.Anthropic(
            base_url=self.url, api_key=self.key, max_retries=self.retries, timeout=self.timeout
        )

    def text(self) -> str:
        create = self.client.messages.create
        (block,) = create(model=self.model, messages=QUESTION, max_tokens=16).content
        assert block.type == "text"
        return block.text

    def texts(self) -> Iterator[str]:
        create = self.client.messages.create
        with create(model=self.model, messages=QUESTION, max_tokens=16, stream=True) as stream:
            for event in stream:
                if event.type == "content_block_delta" and event.delta.type == "text_delta":
                    yield event.delta.text


class LangChain(Sdk):
    def open(self) -> None:
        from langchain_openai import ChatOpenAI, OpenAIEmbeddings

        access: Any = {"base_url": f"{self.url}/v1", "api_key": self.key, "model": self.model}
        access |= {"max_retries": self.retries, "timeout": self.timeout}
        self.chat = ChatOpenAI(**access)
        # Otherwise it counts tokens with a file that it downloads.
        self.embeddings = OpenAIEmbeddings(check_embedding_ctx_length=False, **access)

    def text(self) -> str:
        return str(self.chat.invoke("안녕").content)

    def texts(self) -> Iterator[str]:
        for chunk in self.chat.stream("안녕"):
            yield str(chunk.content)

    def tool(self) -> list[Any]:
        (call,) = self.chat.bind_tools([TOOL]).invoke("안녕").tool_calls
        return [call["name"], call["args"]]

    def parse(self) -> str:
        parsed = self.chat.with_structured_output(Capital, method="json_schema").invoke("안녕")
        return str(parsed.capital)

    def embed(self) -> list[int]:
        return [len(vector) for vector in self.embeddings.embed_documents(["hello", "안녕"])]


class LiteLLM(Sdk):
    def open(self) -> None:
        import litellm

        self.litellm = litellm
        self.access: Any = {
            "model": f"openai/{self.model}",
            "api_base": f"{self.url}/v1",
            "api_key": self.key,
            "timeout": self.timeout,
        }
        self.chat: Any = {**self.access, "messages": QUESTION, "max_retries": self.retries}

    def text(self) -> str:
        return str(self.litellm.completion(**self.chat).choices[0].message.content)

    def texts(self) -> Iterator[str]:
        stream = self.litellm.completion(**self.chat, stream=True)
        with stream.completion_stream:  # LiteLLM's own object has nothing to close it
            for chunk in stream:
                yield chunk.choices[0].delta.content or ""

    def tool(self) -> list[Any]:
        answer = self.litellm.completion(**self.chat, tools=[TOOL])
        (call,) = answer.choices[0].message.tool_calls
        return [call.function.name, json.loads(call.function.arguments)]

    def parse(self) -> str:
        answer = self.litellm.completion(**self.chat, response_format=Capital)
        return Capital.model_validate_json(answer.choices[0].message.content).capital

    def embed(self) -> list[int]:
        answer = self.litellm.embedding(
            **self.access, input=["hello", "안녕"], encoding_format="float"
        )
        return [len(entry["embedding"]) for entry in answer.data]


SDKS: dict[str, type[Sdk]] = {
    "openai": OpenAI,
    "completions": Completions,
    "responses": Responses,
    "anthropic": Anthropic,
    "langchain": LangChain,
    "litellm": LiteLLM,
}


def _cancel(sdk: Sdk) -> str:
    texts = sdk.texts()
    first = next(texts)
    texts.close()  # type: ignore[attr-defined]
    return first


def main(name: str, url: str, key: str, model: str, *calls: str) -> None:
    """Make each call with a client of its own."""
    sdk = SDKS[name]
    table: dict[str, Callable[[], Any]] = {
        "plain": lambda: sdk(url, key, model).text(),
        "stream": lambda: "".join(sdk(url, key, model).texts()),
        "cancel": lambda: _cancel(sdk(url, key, model)),
        "late": lambda: sdk(url, key, model, 0, IMPATIENCE_S).text(),
        "once": lambda: sdk(url, key, model, 0).text(),
        "stranger": lambda: sdk(url, "owa_wrong", model, 0).text(),
        "tool": lambda: sdk(url, key, model).tool(),  # type: ignore[attr-defined]
        "parse": lambda: sdk(url, key, model).parse(),  # type: ignore[attr-defined]
        "embed": lambda: sdk(url, key, model).embed(),  # type: ignore[attr-defined]
    }
    results: list[dict[str, Any]] = []
    for call in calls:
        try:
            results.append({"value": table[call]()})
        except Exception as error:
            status = getattr(error, "status_code", None)
            kind = type(error).__name__
            results.append({"error": str(error), "kind": kind, "status": status})
    sys.stdout.write(f"{json.dumps(results)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
