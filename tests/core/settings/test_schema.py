import pytest

from core.ollama.default import PREFERRED
from core.settings.environment import SettingsError
from core.settings.schema import Settings


def test_defaults_match_the_contract() -> None:
    settings = Settings.from_env({})
    assert (settings.port, settings.default_model or PREFERRED) == (5000, "llama3.1:70b")
    assert settings.request_timeout_s == 300
    assert settings.max_body_bytes == 20 * 1024 * 1024
    assert settings.ollama_base_url == "http://127.0.0.1:11434"
    assert settings.stream_heartbeat_s == 0
    assert settings.allow_cloud_models is False


def test_values_are_read_from_upper_case_names() -> None:
    settings = Settings.from_env(
        {
            "PORT": " 5001 ",
            "ALLOW_CLOUD_MODELS": "true",
            "REQUEST_TIMEOUT_S": "0.5",
            "OLLAMA_BASE_URL": "https://relay.example:8443/ollama",
            "OLLAMA_HEADERS": '{"X-Token": "a b"}',
            "DEFAULT_MODEL": "",
            "UNKNOWN": "x",
        }
    )
    assert settings.port == 5001
    assert settings.allow_cloud_models is True
    assert settings.request_timeout_s == 0.5
    assert settings.ollama_headers == {"X-Token": "a b"}
    assert settings.default_model == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "five"),
        ("PORT", "65536"),
        ("REQUEST_TIMEOUT_S", "0"),
        ("REQUEST_TIMEOUT_S", "nan"),
        ("REQUEST_TIMEOUT_S", "inf"),
        ("ALLOW_CLOUD_MODELS", "perhaps"),
        ("MAX_BODY_BYTES", "-1"),
        ("OLLAMA_BASE_URL", "127.0.0.1:11434"),
        ("OLLAMA_BASE_URL", "ftp://host"),
        ("OLLAMA_BASE_URL", "http://user:secret@host"),
        ("OLLAMA_BASE_URL", "http://host:port"),
        ("OLLAMA_BASE_URL", "http://host:65536"),
        ("RATE_LIMIT_STORAGE", "redis://:secret@host:99999"),
        ("OLLAMA_BASE_URL", "http://host/?token=secret"),
        ("OLLAMA_HEADERS", "X-Token: secret"),
        ("OLLAMA_HEADERS", '["secret"]'),
        ("OLLAMA_HEADERS", '{"X-Token": 1}'),
        ("OLLAMA_HEADERS", '{"secret\\r\\nX-Other": "1"}'),
        ("OLLAMA_HEADERS", '{"X-Token": "secret\\r\\nX-Other: 1"}'),
    ],
)
def test_an_invalid_value_is_refused_by_name_and_never_echoed(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({name: value})
    assert str(caught.value).startswith(f"{name} is invalid: expected ")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
