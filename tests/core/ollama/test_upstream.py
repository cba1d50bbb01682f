import httpx
import pytest

from core.ollama.upstream import Upstream
from core.settings.environment import SettingsError
from core.settings.schema import Settings
from tests.fake_ollama import FakeOllama, recorded


def host_header(url: str, **headers: str) -> bytes:
    sent = Upstream(Settings(ollama_base_url=url, ollama_headers=headers)).headers
    (host,) = (value for name, value in sent if name == b"host")
    return host


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:11434",
        "http://[::1]:11434/",
        "https://relay.example.com/gpu/",
        "http://올라마.example:1",
    ],
)
def test_the_host_header_matches_httpx(url: str) -> None:
    assert host_header(url) == httpx.URL(url).netloc


@pytest.mark.parametrize(
    "url", ["http://host:99999", "http://[1:]", f"http://{'올' * 64}.example", "http://올..example"]
)
def test_a_url_without_a_valid_host_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^OLLAMA_BASE_URL is invalid: expected "):
        Upstream(Settings.from_env({"OLLAMA_BASE_URL": url}))


def test_a_tunnel_may_need_another_host_header() -> None:
    assert host_header("http://relay.example", Host="localhost:11434") == b"localhost:11434"


@pytest.mark.parametrize(
    ("prefix", "path"),
    [
        ("", "/api/version"),
        ("/", "/api/version"),
        ("/gpu/", "/gpu/api/version"),
        ("/a%20b", "/a%20b/api/version"),
        ("/가", "/%EA%B0%80/api/version"),
    ],
)
async def test_the_version_is_requested_below_the_urls_path(
    fake: FakeOllama, prefix: str, path: str
) -> None:
    fake.reply(recorded("version"), path=path)
    upstream = Upstream(Settings(ollama_base_url=fake.url + prefix))
    assert await upstream.is_connected()
    assert [request.path for request in fake.requests] == [path]
    upstream.pool.close()


@pytest.mark.parametrize("url", ["http://a..b", f"http://{'a' * 64}.example", "http://127.0.0.1:0"])
async def test_an_impossible_address_is_disconnected(url: str) -> None:
    assert not await Upstream(Settings(ollama_base_url=url)).is_connected()
