"""`python -m tests.contract.context_sizes`: a `context` beside the token ids that it replaced.

Both are counted as JSON, in bytes. The conversations are made of this project's own documents and
code, in which no phrase was chosen for it; the token ids are those of the built-in model.
"""

import asyncio
import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec

from core.chat.conversation import context_of
from core.contract.schemas import Message
from core.engine.answers import templated
from core.engine.llama import Llama
from core.engine.schemas import ChatMessage
from tests.programs import ROOT

TURNS = (1, 3, 10, 60)
ANSWER_CHARACTERS = range(25, 900)
"""How long an answer may be."""
SOURCES = {
    "English": ("README.md", "deploy/**/*.md", "tests/**/README.md", "*.md"),
    "Korean": ("README.ko.md", "handlers/static/js/ko*.js"),
    "code": ("core/**/*.py",),
}
_PARTS = {
    "English": re.compile(r"\n\n|\n(?=- )"),
    "Korean": re.compile(r"\n\n|\n(?=[-|] ?)|(?<=,)\n|(?<=다\.) "),
    "code": re.compile(r"\n(?=(?:class |def |async def |    def |    async def ))"),
}


def answers(kind: str) -> Iterator[str]:
    """Yield the texts that stand for the model's answers."""
    files: dict[Path, None] = {}
    for pattern in SOURCES[kind]:
        files |= dict.fromkeys(sorted(ROOT.glob(pattern)))
    for path in files:
        if kind == "English" and path.name == "README.ko.md":
            continue
        for part in _PARTS[kind].split(path.read_text("utf-8")):
            hangul = len(re.findall("[가-힣]", part))
            if len(part) in ANSWER_CHARACTERS and (kind != "Korean" or hangul > len(part) / 4):
                yield f"```python\n{part}\n```" if kind == "code" else part


def conversation(kind: str, turns: int) -> tuple[list[Message], str]:
    """Return the messages of so many turns, and the last answer."""
    said: list[Message] = []
    texts = answers(kind)
    for other, answer in islice(zip(texts, texts, strict=False), turns):
        question = " ".join(other.split()[:8])
        said.append(Message(role="user", content=question))
        said.append(Message(role="assistant", content=answer))
    assert len(said) == 2 * turns, f"there are not enough texts for {kind}"
    return said[:-1], said[-1].content


async def main() -> None:
    """Print the table."""
    llama = Llama()
    encode = msgspec.json.encode
    lines = ["| | turns | characters | token ids | context | ratio |", "|---|---|---|---|---|---|"]
    for kind in SOURCES:
        for turns in TURNS:
            said, answer = conversation(kind, turns)
            every = [*said, Message(role="assistant", content=answer)]
            text = templated([ChatMessage(role=each.role, content=each.content) for each in every])
            old = len(encode(await llama.tokenize(text)))
            new = len(encode(context_of(said, answer)))
            characters = sum(len(each.content) for each in every)
            lines.append(f"| {kind} | {turns} | {characters} | {old} | {new} | {new / old:.2f} |")
    await llama.aclose()
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
