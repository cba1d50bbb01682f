"""Keys from a fake of AWS' extension, which answers as its documentation says."""

import asyncio
import fcntl
import json
import logging
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from core.contract.errors import InvalidCredentials
from core.contract.retryable import KeysUnavailable
from core.keys import secret, shared
from core.keys.__main__ import main
from core.keys.editing import create, revoke
from core.keys.store import KeyStore
from core.settings.environment import SettingsError
from core.settings.schema import Settings
from tests.programs import program
from tests.redis_server import RedisServer

SESSION = "session-token-of-the-sandbox"


class Extension(ThreadingHTTPServer):
    """The AWS Parameters and Secrets Lambda Extension, on loopback."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.texts: dict[str, str] = {}
        self.asked: list[str] = []
        self.status = 200


class _Handler(BaseHTTPRequestHandler):
    server: Extension

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.server.asked.append(self.path)
        status = self.server.status
        answer: dict[str, Any] = {}
        if self.headers["X-Aws-Parameters-Secrets-Token"] != SESSION:
            status = 400
        elif url.path == "/secretsmanager/get":
            answer = {"Name": query["secretId"], "SecretString": self.text(query["secretId"])}
        elif url.path == "/systemsmanager/parameters/get" and query["withDecryption"] == "true":
            answer = {"Parameter": {"Name": query["name"], "Value": self.text(query["name"])}}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def text(self, name: str) -> str:
        return self.server.texts.get(name, "")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - it is called so
        pass


@pytest.fixture
def extension() -> Iterator[Extension]:
    with Extension() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def text_of(path: Path) -> str:
    return path.read_text("utf-8")


def store(extension: Extension, **values: Any) -> KeyStore:
    port = extension.server_port
    environ = {"parameters_secrets_extension_http_port": port, "aws_session_token": SESSION}
    return KeyStore.from_settings(
        Settings(**{"api_keys_secret": "secretsmanager:ollama-web-api", **environ, **values})
    )


@pytest.mark.parametrize(
    ("source", "name"), [("secretsmanager", "ollama-web-api"), ("ssm", "/ollama/api-keys")]
)
@pytest.mark.parametrize("wrapped", [True, False])
async def test_keys_are_read_at_the_first_use(
    extension: Extension, path: Path, source: str, name: str, wrapped: bool
) -> None:
    key = create(path, "ci")
    text = text_of(path)
    extension.texts[name] = json.dumps({"API_KEYS": text, "API_KEY": "x"}) if wrapped else text
    keys = store(extension, api_keys_secret=f"{source}:{name}")
    assert not extension.asked, "the extension answers no sandbox that is still starting"
    for _ in range(3):
        await keys.refresh()
        assert keys.authenticate(key).name == "ci"
    assert len(extension.asked) == 1


async def test_more_keys_than_an_environment_holds(extension: Extension, path: Path) -> None:
    keys = [create(path, f"client-{number}", alphanumeric=True) for number in range(40)]
    extension.texts["ollama-web-api"] = text_of(path)
    assert len(extension.texts["ollama-web-api"]) > 4096
    known = store(extension)
    await known.refresh()
    assert known.authenticate(keys[39]).name == "client-39"


async def test_a_revoked_key_is_refused_without_a_deployment(
    extension: Extension, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret, "REFRESH_S", 0)
    key = create(path, "ci")
    extension.texts["ollama-web-api"] = text_of(path)
    keys = store(extension)
    await keys.refresh()
    assert keys.authenticate(key).name == "ci"
    revoke(path, "ci")
    extension.texts["ollama-web-api"] = text_of(path)
    await keys.refresh()
    with pytest.raises(InvalidCredentials):
        keys.authenticate(key)


@pytest.mark.parametrize("fault", ["refused", "no keys", "not JSON", "gone"])
async def test_a_secret_that_cannot_be_read(
    extension: Extension,
    path: Path,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(secret, "REFRESH_S", 0)
    monkeypatch.setattr(secret, "RETRY_S", 0)
    key = create(path, "ci")
    good = extension.texts["ollama-web-api"] = text_of(path)
    known, new = store(extension), store(extension)
    await known.refresh()
    match fault:
        case "refused":
            extension.status = 400
        case "no keys":
            extension.texts["ollama-web-api"] = '{"OLLAMA_HEADERS": "secret-word"}'
        case "not JSON":
            extension.texts["ollama-web-api"] = "secret-word"
        case "gone":
            extension.server_close()
    with caplog.at_level(logging.ERROR):
        await known.refresh()
        with pytest.raises(KeysUnavailable) as unavailable:
            await new.refresh()
    assert known.authenticate(key).name == "ci", "what was read before stays valid"
    assert "retry-after" in unavailable.value.headers
    assert "API_KEYS_SECRET cannot be read" in caplog.text
    assert "secret-word" not in caplog.text
    assert SESSION not in caplog.text
    if fault != "gone":
        extension.status, extension.texts["ollama-web-api"] = 200, good
        await new.refresh()
        assert new.authenticate(key).name == "ci"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    program("redis-server", "apt install redis-server")
    server = RedisServer(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def sharing(
    redis: RedisServer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Settings, Callable[..., None]]:
    """The settings of a gateway elsewhere, and the command that edits the keys here."""
    environ = {"RATE_LIMIT_STORAGE": redis.url, "API_KEYS_SECRET": "redis:keys"}
    for name, value in {**environ, "API_KEYS_FILE": str(path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(shared, "REFRESH_S", 0)
    monkeypatch.setattr(secret, "RETRY_S", 0)
    return Settings.from_env(environ), lambda *arguments: main(arguments)


async def test_a_key_is_created_and_revoked_for_all_gateways(
    sharing: tuple[Settings, Callable[..., None]], capsys: pytest.CaptureFixture[str]
) -> None:
    settings, run = sharing
    elsewhere = KeyStore.from_settings(settings)
    with pytest.raises(KeysUnavailable):
        await elsewhere.refresh()
    await asyncio.to_thread(run, "create", "--name", "ci")
    key = capsys.readouterr().out.strip()
    await elsewhere.refresh()
    assert elsewhere.authenticate(key).name == "ci"
    await asyncio.to_thread(run, "revoke", "ci")
    await elsewhere.refresh()
    with pytest.raises(InvalidCredentials):
        elsewhere.authenticate(key)


async def test_a_shared_store_that_is_down_or_empty_revives_no_key(
    sharing: tuple[Settings, Callable[..., None]],
    redis: RedisServer,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings, run = sharing
    elsewhere = KeyStore.from_settings(settings)
    await asyncio.to_thread(run, "create", "--name", "ci")
    await asyncio.to_thread(run, "create", "--name", "gone")
    key, gone = capsys.readouterr().out.split()
    await asyncio.to_thread(run, "revoke", "gone")
    await elsewhere.refresh()
    redis.stop()
    with pytest.raises(SystemExit, match=r"not have this change yet: .+core\.keys publish"):
        await asyncio.to_thread(run, "create", "--name", "late")
    late = capsys.readouterr().out.strip()
    await elsewhere.refresh()
    assert "RATE_LIMIT_STORAGE does not answer" in caplog.text
    redis.start()  # it has kept nothing
    await elsewhere.refresh()
    assert "keys does not exist. Run: python -m core.keys publish" in caplog.text
    assert elsewhere.authenticate(key).name == "ci", "what was read before stays valid"
    with pytest.raises(InvalidCredentials):
        elsewhere.authenticate(gone)
    with pytest.raises(KeysUnavailable):
        await KeyStore.from_settings(settings).refresh()
    await asyncio.to_thread(run, "publish")
    await elsewhere.refresh()
    assert elsewhere.authenticate(late).name == "late"


async def test_nobody_changes_the_file_while_it_is_published(
    sharing: tuple[Settings, Callable[..., None]], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run = sharing
    commands = []

    def send(keys: shared.SharedKeys, command: str, *values: bytes) -> None:
        commands.append(command)
        with Path(f"{path}.lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    monkeypatch.setattr(shared.SharedKeys, "_call", send)
    await asyncio.to_thread(run, "create", "--name", "ci")
    assert commands == ["set"]


async def test_a_broken_file_is_not_published(
    sharing: tuple[Settings, Callable[..., None]],
    path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings, run = sharing
    await asyncio.to_thread(run, "create", "--name", "ci")
    key = capsys.readouterr().out.strip()
    await asyncio.to_thread(path.write_text, "[{")
    with pytest.raises(SystemExit, match="API_KEYS_FILE is invalid"):
        await asyncio.to_thread(run, "publish")
    elsewhere = KeyStore.from_settings(settings)
    await elsewhere.refresh()
    assert elsewhere.authenticate(key).name == "ci"


@pytest.mark.parametrize("is_gone", [True, False])
async def test_shared_keys_change_while_the_gateways_own_file_is_broken(
    is_gone: bool,
    sharing: tuple[Settings, Callable[..., None]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings, run = sharing
    own = tmp_path / "own.json"
    local = create(own, "local")
    gateway = KeyStore.from_settings(msgspec.structs.replace(settings, api_keys_file=str(own)))
    await asyncio.to_thread(run, "create", "--name", "ci")
    await gateway.refresh()
    own.unlink() if is_gone else own.write_text("[{")
    await asyncio.to_thread(run, "revoke", "ci")
    await asyncio.to_thread(run, "create", "--name", "late")
    revoked, late = capsys.readouterr().out.split()
    await gateway.refresh()
    with pytest.raises(InvalidCredentials):
        gateway.authenticate(revoked)
    assert gateway.authenticate(late).name == "late"
    assert gateway.authenticate(local).name == "local"


def test_shared_keys_need_a_store_that_is_shared(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match="needs RATE_LIMIT_STORAGE=redis"):
        KeyStore.from_settings(Settings.from_env({"API_KEYS_SECRET": "redis:keys"}))
    monkeypatch.setenv("API_KEYS_FILE", str(path))
    with pytest.raises(SystemExit, match="Set API_KEYS_SECRET=redis:NAME"):
        main(["publish"])


@pytest.mark.parametrize("value", ["keys", "s3:keys", "ssm:", "secretsmanager:a b"])
def test_a_name_of_neither_service_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match="API_KEYS_SECRET is invalid"):
        Settings.from_env({"API_KEYS_SECRET": value})
