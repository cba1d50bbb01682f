"""Translates Ollama's options to llama.cpp's."""

from typing import Any

import pytest

from core.engine.errors import EngineError
from core.engine.sampling import grammar, sampling

CONTEXT = 4096


def test_defaults_are_the_model_s_then_ollama_s() -> None:
    assert sampling({}) == {
        "temperature": 0.0,
        "top_k": 40,
        "top_p": 0.9,
        "min_p": 0.0,
        "typical_p": 1.0,
        "repeat_last_n": 64,
        "repeat_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": -1,
        "stop": [],
        "n_predict": 512,
    }


@pytest.mark.parametrize(
    ("option", "given", "name", "expected"),
    [
        ("num_predict", 5, "n_predict", 5),
        ("num_predict", 2.7, "n_predict", 2),
        ("num_predict", 3000, "n_predict", 3000),
        ("num_predict", 8192, "n_predict", 512),  # MAX_PREDICT
        ("num_predict", 0, "n_predict", -1),
        ("num_predict", -2, "n_predict", -1),
        ("temperature", 1, "temperature", 1.0),
        ("temperature", None, "temperature", 0.0),
        ("top_k", 2**40, "top_k", 2**31 - 1),
        ("seed", -(2**40), "seed", -(2**31)),
        ("repeat_last_n", -1, "repeat_last_n", CONTEXT),
        ("stop", ["x", "y"], "stop", ["x", "y"]),
    ],
)
def test_takes_an_option(option: str, given: Any, name: str, expected: Any) -> None:
    assert sampling({option: given})[name] == expected


@pytest.mark.parametrize(
    ("option", "given", "text"),
    [
        ("temperature", "hot", 'option "temperature" must be of type float32'),
        ("temperature", True, 'option "temperature" must be of type float32'),
        ("num_predict", "5", 'option "num_predict" must be of type integer'),
        ("stop", "x", 'option "stop" must be of type array'),
        ("stop", [1], 'option "stop" must be of an array of strings'),
    ],
)
def test_refuses_an_option_of_the_wrong_type(option: str, given: Any, text: str) -> None:
    with pytest.raises(EngineError) as failure:
        sampling({option: given})
    assert str(failure.value) == text
    assert failure.value.status == 500


def test_ignores_other_options() -> None:
    assert sampling({"num_ctx": 1, "nope": {}}) == sampling({})


@pytest.mark.parametrize("format_", [None, ""])
def test_without_a_format_there_is_no_grammar(format_: Any) -> None:
    assert grammar(format_) == {}


@pytest.mark.parametrize("format_", ["xml", 1, [], True])
def test_refuses_an_unknown_format(format_: Any) -> None:
    with pytest.raises(EngineError, match=r"^invalid format: "):
        grammar(format_)
