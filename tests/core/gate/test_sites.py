from ipaddress import ip_address

import pytest

from core.gate import sites
from core.gate.sites import MANY_56, MANY_64, Sites


def of(found: Sites, text: str) -> str:
    return found.of(ip_address(text))


def test_an_ipv4_address_and_a_64_are_sites() -> None:
    found = Sites()
    assert of(found, "192.0.2.1") == "192.0.2.1"
    assert of(found, "2001:db8::1") == of(found, "2001:db8::ffff:1") == "2001:db8::/64"
    assert of(found, "2001:db8:0:1::1") == "2001:db8:0:1::/64"


def test_a_56_with_many_64s_is_one() -> None:
    found = Sites()
    names = {of(found, f"2001:db8:0:{number:x}::1") for number in range(256)}
    assert len(names) == MANY_64
    assert of(found, "2001:db8:0:0::1") == "2001:db8::/56"
    assert of(found, "2001:db8:0:100::1") == "2001:db8:0:100::/64", "its neighbour is another"


def test_a_48_with_many_64s_is_one_however_they_are_spread() -> None:
    found = Sites()
    names = {of(found, f"2001:db8:0:{number:x}::1") for number in range(0, 65_536, 7)}
    assert len(names) <= MANY_56 * MANY_64 < 1000
    assert of(found, "2001:db8:0:ffff::1") == "2001:db8::/48"
    assert of(found, "2001:db8:1::1") == "2001:db8:1::/64"


def test_one_network_that_calls_often_is_not_many() -> None:
    found = Sites()
    names = {of(found, f"2001:db8::{number:x}") for number in range(1000)}
    assert names == {"2001:db8::/64"}


def test_memory_is_bounded_and_fades(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sites, "MAX_REMEMBERED", 10)
    found = Sites()
    for number in range(1000):
        of(found, f"2001:{number:x}::1")
    assert len(found._seen) == 10
    for number in range(20):
        of(found, f"2001:db8:0:{number:x}::1")
    assert of(found, "2001:db8::1") == "2001:db8::/56"
    found._forget_at = 0
    assert of(found, "2001:db8::1") == "2001:db8::/64"
