import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.chat.pattern import MAX_PATTERN, Pattern, PatternRefused


@pytest.mark.parametrize(
    ("pattern", "sent"),
    [
        ("^abc$", None),
        ("^안녕 ?(하세요)?!$", None),
        ("^(a|bc)+$", None),
        ("^[A-Z]{2}$", None),
        ("^[^\\]a-c-]$", None),
        ("^a{0,2000}$", None),
        ("^a{3,}$", None),
        ("^(\\([0-9]{3}\\))?[0-9]{3}-[0-9]{4}$", None),
        ("^\\d+$", "^[0-9]+$"),
        ("^\\w{1,9}\\s\\D$", "^[A-Za-z0-9_]{1,9}[ \\t\\n\\r][^0-9]$"),
        ("^[\\w.\\-]+@[\\d\\s]$", "^[A-Za-z0-9_.\\x2D]+@[0-9 \\t\\n\\r]$"),
        ("^a\\/b\\-c$", "^a/b-c$"),
        ("^x\\.{2}\\+?$", "^x[\\x2E]{2}[\\x2B]?$"),
        ("^[[]$", "^[\\[]$"),
    ],
)
def test_a_pattern_is_written_for_every_ollama(pattern: str, sent: str | None) -> None:
    assert Pattern(pattern).text == (sent or pattern)


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("", "must start with"),
        ("$", "must start with"),
        ("^", "must start with"),
        ("a", "must start with"),
        ("^$", "empty part"),
        ("^a|$", "empty part"),
        ("^(|a)$", "empty part"),
        ("^()$", "empty part"),
        ("^a\\$", "the escape \\"),
        ("^a)$", "without its ("),
        ("^(a$", "without its )"),
        ("^(a))$", "without its ("),
        ("^[a$", "without its ]"),
        ("^[]$", "empty [ ]"),
        ("^[^]$", "empty [ ]"),
        ("^[z-a]$", "range z-a"),
        ("^[a-\\d]$", "range"),
        ("^a]$", "has a ] where"),
        ("^a}$", "has a } where"),
        ("^a^b$", "has a ^ where"),
        ("^a$b$", "has a $ where"),
        ("^+$", "has a + where"),
        ("^(*a)$", "has a * where"),
        ("^a|*$", "has a * where"),
        ("^a**$", "two repetitions"),
        ("^a+?$", "two repetitions"),
        ("^a{2}{3}$", "two repetitions"),
        ("^(a*)+$", "may be empty"),
        ("^(a?b?){2}$", "may be empty"),
        ("^(a|b*)?$", "may be empty"),
        ("^((a*))*$", "may be empty"),
        ("^a{2001}$", "more than 2000"),
        ("^a{2001,}$", "more than 2000"),
        ("^a{1,2001}$", "more than 2000"),
        ("^a{20000}$", "starts no repetition"),
        ("^a{,3}$", "starts no repetition"),
        ("^a{}$", "starts no repetition"),
        ("^a{1$", "starts no repetition"),
        ("^a{-1}$", "starts no repetition"),
        ("^a{ 1}$", "starts no repetition"),
        ("^a{3,2}$", "not possible"),
        ("^a{0}$", "not possible"),
        ("^a{0,0}$", "not possible"),
        ("^(?:a)$", "(?...)"),
        ("^(?!a)b$", "(?...)"),
        ("^\\b$", "escape \\b"),
        ("^\\1$", "escape \\1"),
        ("^\\p{L}$", "escape \\p"),
        ("^\\u0041$", "escape \\u"),
        ("^[\\b]$", "escape \\b"),
        ("^a\nb$", "control character"),
        ("^[\x00]$", "control character"),
        ("^" + "(" * 17 + "a" + ")" * 17 + "$", "deeper than 16"),
        ("^" + "a" * MAX_PATTERN + "$", f"longer than {MAX_PATTERN}"),
    ],
)
def test_what_may_harm_ollama_is_refused(pattern: str, problem: str) -> None:
    with pytest.raises(PatternRefused) as caught:
        Pattern(pattern)
    assert problem in str(caught.value)


def test_groups_side_by_side_are_not_nested() -> None:
    assert Pattern("^" + "(a)" * 100 + "$").weight == 0


def test_the_weight_is_what_llama_cpp_copies() -> None:
    assert Pattern("^a{7}$").weight == 7
    assert Pattern("^[abc]{2,10}$").weight == 10 * len("[abc]")
    assert Pattern("^(a{5}){6}$").weight == 5 + 6


@pytest.mark.filterwarnings("ignore:Possible:FutureWarning")  # of [[ and --, in a later Python
@given(st.text(alphabet='ab-^$.[]()|{}*+?\\,012d"가\n', max_size=20))
def test_what_passes_means_the_same_in_python(inside: str) -> None:
    try:
        sent = Pattern(f"^{inside}$").text
    except PatternRefused:
        return
    for text in ("", "a", "ab", "aa", "b", "0", "-", "a0", "가", '"', ".", "\\", "{"):
        assert bool(re.fullmatch(sent, text)) == bool(re.fullmatch(f"^{inside}$", text)), sent
    assert Pattern(sent).text == sent, "written once, it stays so"
