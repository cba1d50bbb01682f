import ssl
import subprocess
from pathlib import Path

import pytest

from core.settings.certificates import load_pair
from core.settings.environment import SettingsError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three certificates with their keys, one of another type, and an encrypted copy of a key."""
    for name in ("one", "two"):
        command = f"req -x509 -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key"
        openssl(tmp_path, *command.split(), "-out", f"{name}.crt")
    curve = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=curve"
    openssl(tmp_path, *curve.split(), "-keyout", "curve.key", "-out", "curve.crt")
    encrypt = "rsa -aes256 -passout pass:words -in one.key"
    openssl(tmp_path, *encrypt.split(), "-out", "encrypted.key")
    both = (tmp_path / "one.crt").read_bytes() + (tmp_path / "encrypted.key").read_bytes()
    (tmp_path / "both.pem").write_bytes(both)
    return tmp_path


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def load(folder: Path, certificate: str, key: str) -> None:
    load_pair(
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        str(folder / certificate),
        str(folder / key) if key else "",
        names=("CERT", "KEY"),
    )


@pytest.mark.parametrize(
    ("certificate", "key", "text"),
    [
        ("one.crt", "two.key", "KEY does not fit CERT: "),
        ("one.crt", "curve.key", "KEY does not fit CERT: "),
        ("curve.crt", "one.key", "KEY does not fit CERT: "),
        ("one.crt", "encrypted.key", "KEY is encrypted: "),
        ("both.pem", "", "CERT is encrypted: "),
        ("one.crt", "none.key", "CERT or KEY is invalid: "),
        ("one.crt", "", "CERT or KEY is invalid: "),
    ],
)
def test_what_is_wrong_with_a_pair_is_said(
    folder: Path, certificate: str, key: str, text: str
) -> None:
    load(folder, "one.crt", "one.key")
    with pytest.raises(SettingsError, match=f"^{text}"):
        load(folder, certificate, key)
