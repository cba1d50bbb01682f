import pytest

from core.engine.bodies import decode
from core.engine.errors import EngineError
from core.engine.schemas import ChatRequest


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("", "missing request body"),
        (" ", "unexpected EOF"),
        ("{", "unexpected EOF"),
        ('{"model": "a', "unexpected EOF"),
        ('{"model": nul', "unexpected EOF"),
        ("nope", "invalid character 'o' in literal null (expecting 'u')"),
        ("trap", "invalid character 'a' in literal true (expecting 'u')"),
        ("x", "invalid character 'x' looking for beginning of value"),
        ("{'a'}", r"invalid character '\'' looking for beginning of object key string"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a": 1 2}', "invalid character '2' after object key:value pair"),
        ('{"a": ["]}", 1 2]}', "invalid character '2' after array element"),
        ('{"a": "\n"}', r"invalid character '\n' in string literal"),
        (r'{"a": "\x"}', "invalid character 'x' in string escape code"),
        ('"a"', "json: cannot unmarshal string into Go value of type api.ChatRequest"),
        (
            '{"messages": {}}',
            (
                "json: cannot unmarshal object into Go struct field ChatRequest.messages of type "
                "[]api.Message"
            ),
        ),
        (
            '{"messages": [{"role": "user", "content": 1}]}',
            (
                "json: cannot unmarshal number into Go struct field ChatRequest.messages.content "
                "of type string"
            ),
        ),
        ("[" * 100_000, "exceeded max depth"),
    ],
)
def test_an_invalid_body_is_explained_as_go_does(body: str, error: str) -> None:
    with pytest.raises(EngineError) as caught:
        decode(body.encode(), ChatRequest)
    assert str(caught.value) == error


def test_what_follows_the_value_is_ignored() -> None:
    assert decode(b' {"model": "m"} xyz', ChatRequest).model == "m"
