import zlib
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.chat.conversation import check, context_of, decoded, messages_of
from core.chat.phrases import PHRASES
from core.contract.errors import BadRequest
from core.contract.schemas import MAX_MESSAGES, ChatRequest, Message

LIMIT = 2**20
INT32_MAX = 2**31 - 1

user = st.builds(Message, role=st.just("user"), content=st.text())
messages = st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=...)
conversations = st.lists(messages, max_size=8)


def said(*texts: str) -> list[Message]:
    return [
        Message(role="assistant" if number % 2 else "user", content=text)
        for number, text in enumerate(texts)
    ]


@given(conversations, st.text())
def test_a_conversation_comes_back_as_it_was(said: list[Message], answer: str) -> None:
    context = context_of(said, answer)
    assert all(type(number) is int and 0 <= number <= INT32_MAX for number in context)
    assert decoded(context, LIMIT) == [*said, Message(role="assistant", content=answer)]


@given(st.lists(st.integers(0, INT32_MAX), max_size=40))
def test_a_foreign_array_is_refused(context: list[int]) -> None:
    with pytest.raises(BadRequest, match=r"^context: .*start a new conversation"):
        decoded(context, LIMIT)


@pytest.mark.parametrize("context", [[1, 4093, 198, 1780], [128000, 128006, 882], [0], [151643]])
def test_the_token_ids_of_earlier_versions_are_refused(context: list[int]) -> None:
    with pytest.raises(
        BadRequest, match=r"is not one that this server can read.*a new conversation"
    ):
        decoded(context, LIMIT)


@given(conversations, st.text(), st.data())
def test_any_damage_is_noticed(said: list[Message], answer: str, data: st.DataObject) -> None:
    context = context_of(said, answer)
    changed = [*context]
    match data.draw(st.sampled_from(["change", "cut", "extend", "swap"])):
        case "change":
            changed[data.draw(st.integers(0, len(context) - 1))] = data.draw(
                st.integers(0, INT32_MAX)
            )
        case "cut":
            del changed[data.draw(st.integers(0, len(context) - 1)) :]
        case "extend":
            changed += data.draw(st.lists(st.integers(0, INT32_MAX), min_size=1, max_size=3))
        case "swap":
            one, other = (data.draw(st.integers(0, len(context) - 1)) for _ in range(2))
            changed[one], changed[other] = changed[other], changed[one]
    if changed == context:
        return
    with pytest.raises(BadRequest, match=r"^context: "):
        decoded(changed, LIMIT)


def forged(payload: bytes, *, packed: bool) -> list[int]:
    """Return a context whose marker, size and checksum are right, whatever it contains."""
    marker, *_ = context_of([], "")
    triples = [payload[start : start + 3] for start in range(0, len(payload), 3)]
    numbers = [int.from_bytes(triple, "little") for triple in triples]
    return [marker, 2 * len(payload) + packed, zlib.crc32(payload) >> 1, *numbers]


def deflated(plain: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15, zdict=PHRASES.encode())
    return deflate.compress(plain) + deflate.flush()


@given(st.binary(max_size=200), st.booleans())
def test_a_forged_context_is_a_conversation_or_refused(payload: bytes, packed: bool) -> None:
    with suppress(BadRequest):
        said = decoded(forged(payload, packed=packed), LIMIT)
        assert all(isinstance(message, Message) for message in said)


@pytest.mark.parametrize(
    "plain",
    [
        b"\x91\x92\x03\xa1a",  # a role that there is not
        b"\x91\x92\xff\xa1a",
        b"\x91\x93\x01\xa1a\xc0",  # a field too many
        b"\x91\x91\x01",
        b"\x91\x92\x01\xa1\xff",  # not UTF-8
        b"\x91\x92\x01\xc4\x01a",  # bytes instead of text
        b"\x80",
        b"\xc0",
        b"",
        b"\xdd\xff\xff\xff\xff",  # four billion messages
        b"\x91\x92\x01\xdb\xff\xff\xff\xff",  # a text of four gigabytes
        b"\xdc\x10\x01" + b"\x92\x01\xa0" * (MAX_MESSAGES + 1),
        b"\x91" * 100_000,
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_a_forged_conversation_is_refused(plain: bytes, packed: bool) -> None:
    payload = deflated(plain) if packed else plain
    with pytest.raises(BadRequest, match=r"^context: "):
        decoded(forged(payload, packed=packed), LIMIT)


def test_a_bomb_is_not_unpacked() -> None:
    bomb = deflated(b"\x91\x92\x01\xdb\x10\x00\x00\x00" + bytes(2**28))
    with pytest.raises(BadRequest, match="longer than this server's limit of 1000 bytes"):
        decoded(forged(bomb, packed=True), 1000)


def test_data_behind_the_end_is_refused() -> None:
    payload = deflated(b"\x91\x92\x01\xa1a")
    assert decoded(forged(payload, packed=True), LIMIT) == said("a")
    for damaged in (payload + b"x", payload[:-1]):
        with pytest.raises(BadRequest, match=r"^context: "):
            decoded(forged(damaged, packed=True), LIMIT)


def test_what_does_not_compress_is_kept_plain() -> None:
    noise = "".join(chr(0x4E00 + 7919 * number % 20_000) for number in range(100))
    assert len(context_of(said(noise), "")) <= len(noise.encode()) / 3 + 8


def test_the_phrases_belong_to_the_version() -> None:
    """An old context must stay readable: a change needs a new `VERSION`, and this number."""
    assert (context_of([], "")[0] & 0xFF, zlib.crc32(PHRASES.encode())) == (1, 3_419_471_844)


def ask(context: list[int] | None = None, **fields: object) -> ChatRequest:
    return ChatRequest(**{"message": "hi", "context": context, **fields})  # type: ignore[arg-type]


def roles(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in messages]


def test_a_system_prompt_is_kept_once_and_replaced_by_a_new_one() -> None:
    first = messages_of(ask(system="Be brief."), LIMIT)
    assert roles(first) == [("system", "Be brief."), ("user", "hi")]
    context = context_of(first, "Hello.")
    talk = [("user", "hi"), ("assistant", "Hello."), ("user", "hi")]
    assert roles(messages_of(ask(context), LIMIT)) == [("system", "Be brief."), *talk]
    second = messages_of(ask(context, system="Be long."), LIMIT)
    assert roles(second) == [("system", "Be long."), *talk]
    context = context_of(second, "Hello again.")
    third = messages_of(ask(context, system="Be kind."), LIMIT)
    assert roles(third)[:4] == [("system", "Be kind."), *talk]
    context = context_of(first, "Hello.")
    assert roles(messages_of(ask(context, system=""), LIMIT)) == talk


def test_given_messages_are_the_conversation() -> None:
    given = [Message(role="system", content="s"), *said("a", "b", "c")]
    chat = ChatRequest(messages=given)
    check(chat)
    assert messages_of(chat, LIMIT) == given
    chat.system = "new"
    assert roles(messages_of(chat, LIMIT))[:2] == [("system", "new"), ("user", "a")]


def test_images_are_sent_with_their_message_and_left_out_of_the_context() -> None:
    image = msgspec.Raw(b'"AAAA"')
    sent = messages_of(ask(images=[image]), LIMIT)
    assert sent[0].images == [image]
    assert decoded(context_of(sent, "A cat."), LIMIT) == said("hi", "A cat.")


def test_a_conversation_is_bounded() -> None:
    chat = ask(message="한" * 10)
    assert messages_of(chat, 30)
    with pytest.raises(BadRequest, match=r"limit of 29 bytes of text. Start a new conversation"):
        messages_of(chat, 29)
    context = context_of(said("한" * 10), "x")
    assert messages_of(ask(context), 33)
    with pytest.raises(BadRequest, match="limit of 32 bytes"):
        messages_of(ask(context), 32)
    noise = context_of(
        said("".join(sha256(b"%d" % number).hexdigest() for number in range(2000))), ""
    )
    with pytest.raises(BadRequest, match="limit of 1000 bytes"):
        messages_of(ask(noise), 1000)
