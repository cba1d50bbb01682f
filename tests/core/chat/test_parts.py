import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.chat.parts import PartsCounter
from core.contract.errors import BadRequest

JSON = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('a\\",:[{\n가')),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.sampled_from('a\\",{')), inner),
    max_leaves=20,
)


def parts_in(text: str) -> int:
    string = re.compile(r'"(?:[^"\\]|\\.)*"')
    return len(string.findall(text)) + len(re.findall(r"[,:\[{]", string.sub("", text)))


@given(JSON, st.integers(1, 7), st.booleans())
def test_what_is_inside_strings_does_not_count(value: object, size: int, ascii_: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_)
    data, parts = text.encode(), parts_in(text)

    def feed(limit: int) -> None:
        counter = PartsCounter(limit)
        for at in range(0, len(data), size):
            counter.feed(data[at : at + size])

    feed(max(parts, len(data)))
    feed(max(parts, 1 + len(data) // 32))
    if parts > 1 + len(data) // 32:
        with pytest.raises(BadRequest, match="over"):
            feed(parts - 1)


@pytest.mark.parametrize("blank", [b" ", b"1", b"\n\t"])
def test_blanks_and_digits_count_as_well(blank: bytes) -> None:
    counter = PartsCounter(10)
    counter.feed(blank * (320 // len(blank)) + b'"' + b"a" * 10_000 + b'"')
    with pytest.raises(BadRequest, match="over 10 values, or is mostly whitespace"):
        counter.feed(blank)
