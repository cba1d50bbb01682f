import pytest
from starlette.requests import ClientDisconnect, Request

from core.chat.body import SMALL_BODY_BYTES, MemoryBudget, read_body
from core.context import Record
from core.contract.errors import BadRequest, BodyTooLarge
from core.contract.retryable import MemoryFull
from core.settings.environment import SettingsError
from core.settings.schema import Settings


def record() -> Record:
    return Record(request_id="1", method="POST", path="/", started_at=0)


async def read(
    *pieces: bytes, charset: str = "utf-8", budget: int = 2**20, most: int = 2**20
) -> bytes:
    """Return the body that arrives as `pieces`; an empty one at the end is a disconnect."""
    messages: list[dict[str, object]] = [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
        if piece
        else {"type": "http.disconnect"}
        for number, piece in enumerate(pieces, 1)
    ]
    arriving = iter(messages)

    async def receive() -> dict[str, object]:
        return next(arriving)

    scope = {"type": "http", "headers": [], "state": {"record": record()}}
    settings = Settings(max_body_bytes=most, max_conversation_bytes=1)
    return bytes(await read_body(Request(scope, receive), charset, settings, MemoryBudget(budget)))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("text", ["a", "안녕하세요!", "é😀", "\ufeffa"])
@pytest.mark.parametrize("charset", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "cp949"])
async def test_text_in_any_charset_becomes_utf_8(text: str, charset: str, size: int) -> None:
    try:
        body = text.encode(charset)
    except UnicodeEncodeError:
        return
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    assert await read(*pieces, charset=charset) == text.removeprefix("\ufeff").encode()


@pytest.mark.parametrize(
    ("pieces", "charset"),
    [
        ([b'{"message": "\xff\xfe"}'], "utf-8"),
        ([b'{"message": "a", "unknown": "\xff"}'], "utf-8"),
        ([b"\xea\xb0", b"a"], "utf-8"),
        ([b"a" * 70_000, b"\xea\xb0"], "utf-8"),
        (["안녕".encode("cp949")], "utf-8"),
        ([b'{"message": "\xff\xff"}'], "cp949"),
        ([b"a\0b"], "utf-16-le"),
        ([b"\0\xd8a\0"], "utf-16-le"),
        ([b"\xc3\xa9"], "ascii"),
    ],
)
async def test_text_invalid_in_its_charset_is_refused(pieces: list[bytes], charset: str) -> None:
    with pytest.raises(BadRequest, match="charset=utf-8"):
        await read(*pieces, charset=charset)


async def test_a_body_ends_at_its_limits() -> None:
    assert await read(b"a" * 10, most=10) == b"a" * 10
    with pytest.raises(BodyTooLarge, match="over 10 bytes"):
        await read(b"a" * 6, b"a" * 5, most=10)
    with pytest.raises(MemoryFull):
        await read(b"a" * 6, b"a" * 5, budget=10)
    with pytest.raises(ClientDisconnect):
        await read(b"a", b"")


@pytest.mark.parametrize("unit", [b"{},", b"[", b'"":', b"1,"])
async def test_a_large_body_of_small_values_is_cut_off(unit: bytes) -> None:
    pieces = [unit * 20_000] * 60
    with pytest.raises(BadRequest, match="has over 131072 values"):
        await read(*pieces, most=2**30, budget=2**30)


@pytest.mark.parametrize(
    ("size", "least"),
    [
        (1, 1),
        (SMALL_BODY_BYTES, SMALL_BODY_BYTES),
        (1_500_000, 1_600_000),
        (20 * 2**20, 22_369_622),
    ],
)
def test_the_budget_has_room_for_one_body(size: int, least: int) -> None:
    budget = MemoryBudget.from_settings(Settings(max_body_bytes=size, max_memory_bytes=least))
    budget.hold(record(), size)
    with pytest.raises(SettingsError, match=f"MAX_MEMORY_BYTES is invalid: .* least {least}, "):
        MemoryBudget.from_settings(Settings(max_body_bytes=size, max_memory_bytes=least - 1))


def test_the_budget_counts_what_is_held() -> None:
    budget, first, second = MemoryBudget(16 * SMALL_BODY_BYTES), record(), record()
    budget.hold(first, 10)
    budget.hold(first, 10 * SMALL_BODY_BYTES)
    budget.hold(second, SMALL_BODY_BYTES)
    held = 10 + 11 * SMALL_BODY_BYTES
    assert budget.used == held
    with pytest.raises(MemoryFull):
        budget.hold(second, 4 * SMALL_BODY_BYTES)
    assert (budget.used, second.body_bytes) == (held, SMALL_BODY_BYTES), "it holds what it had"
    budget.check(4 * SMALL_BODY_BYTES - 10)
    budget.release(first)
    budget.release(first)
    budget.release(second)
    assert budget.used == 0


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
async def test_utf_16_may_have_a_byte_order_mark_or_not(encoding: str, size: int) -> None:
    data = "안녕 😀".encode(encoding)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    assert await read(*pieces, charset="utf-16") == "안녕 😀".encode()
