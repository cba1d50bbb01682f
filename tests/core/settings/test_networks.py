from ipaddress import ip_address

import pytest

from core.settings.networks import UNKNOWN, Networks, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" 192.0.2.1:8080 ", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("[::ffff:c000:201]:80", "192.0.2.1"),
    ],
)
def test_addresses_are_read_as_proxies_write_them(text: str, address: str) -> None:
    assert parse_address(text) == ip_address(address)


@pytest.mark.parametrize(
    "text",
    ["", "unknown", "_hidden", "localhost", "127.1", "0x7f.0.0.1", "[127.0.0.1", "1.2.3.4:x", "😀"],
)
def test_an_invalid_address_is_unknown(text: str) -> None:
    assert parse_address(text) == UNKNOWN
    assert not UNKNOWN.is_loopback


def test_networks_contain_their_addresses() -> None:
    networks = Networks("10.0.0.0/8, 192.0.2.1 ,2001:db8::/32")
    assert ip_address("10.255.0.1") in networks
    assert ip_address("192.0.2.1") in networks
    assert ip_address("2001:db8:1::1") in networks
    assert ip_address("192.0.2.2") not in networks
    assert ip_address("2001:db9::1") not in networks
    assert str(networks) == "10.0.0.0/8,192.0.2.1/32,2001:db8::/32"


def test_none_contains_no_address_and_everything_even_the_unknown_one() -> None:
    assert UNKNOWN not in Networks("none")
    assert str(Networks("none")) == "none"
    assert UNKNOWN in Networks("0.0.0.0/0,::/0")
    assert UNKNOWN not in Networks("127.0.0.0/8,::1,10.0.0.0/8,fd00::/8")


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "10.0.0.0/33", "localhost", "10.0.0.0/8,"])
def test_an_invalid_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Networks(text)
