"""What the messages of the compatible APIs say."""

from typing import Any

from core.engine.errors import EngineError
from core.engine.schemas import ChatMessage, OpenAIMessage


def text_of(content: Any) -> str:
    """Return the text in `content`, a message's or a tool's, which the model does not tell apart.

    Raises:
        EngineError: it contains an image or a file, or is no content at all.
    """
    match content:
        case str(text):
            return text
        case list(parts):
            return "".join([text_of(part) for part in parts])
        case {"type": "image" | "input_image" | "input_file"}:
            raise EngineError("the built-in model reads only text: no images and no files", 400)
        case {"text": part} | {"content": part} | {"output": part}:
            return text_of(part)
        case None | dict():
            return ""
    raise _invalid(content)


def messages_of(message: OpenAIMessage) -> list[ChatMessage]:
    """Return the text and the images of `message`, each as a message of its own, as in Ollama."""
    match message.content:
        case None if message.tool_calls:  # of which the model's template shows nothing
            return [ChatMessage(role=message.role, content="")]
        case str(text):
            return [ChatMessage(role=message.role, content=text)]
        case list(parts):
            return [_part(message.role, part) for part in parts]
    raise _invalid(message.content)


def _invalid(content: Any) -> EngineError:
    known = {int: "float64", float: "float64", bool: "bool", type(None): "<nil>"}
    shown = known.get(type(content), "map[string]interface {}")
    return EngineError(f"invalid message content type: {shown}", 400)


def _part(role: str, part: Any) -> ChatMessage:
    match part:
        case {"type": "text", "text": str(text)}:
            return ChatMessage(role=role, content=text)
        case {"type": "image_url", "image_url": {"url": str(url)} | str(url)}:
            if not url.startswith("data:"):
                raise EngineError(
                    "image URLs are not currently supported, please use base64 encoded data "
                    "instead",
                    400,
                )
            return ChatMessage(role=role, content="", images=[b""])  # which it cannot see
    raise EngineError("invalid message format", 400)
