"""IP addresses and networks."""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Address = IPv4Address | IPv6Address

UNKNOWN = ip_address("0.0.0.0")  # noqa: S104
"""Stands for an unknown address: only 0.0.0.0/0 is meant to contain it."""

_NODE = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]]+))(?::\d+)?")


class Networks:
    """Networks in CIDR notation, separated by commas; `none` is empty."""

    def __init__(self, text: str) -> None:
        """Parse `text`.

        Raises:
            ValueError: an entry is not a network, or has host bits set.
        """
        blocks = [] if text == "none" else [block.strip() for block in text.split(",")]
        self._networks = [ip_network(block) for block in blocks]
        self._contains = lru_cache(maxsize=1024)(self._is_in_any)

    def __contains__(self, address: Address) -> bool:
        return self._contains(address)

    def _is_in_any(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def __str__(self) -> str:
        return ",".join(str(network) for network in self._networks) or "none"


@lru_cache(maxsize=1024)
def parse_address(text: str) -> Address:
    """Return the address in `text`, with or without brackets and port; UNKNOWN if there is none.

    An IPv4 address mapped into IPv6 becomes IPv4: a dual-stack socket shows all clients that way.
    """
    node = _NODE.fullmatch(text.strip())
    host = (node[1] or node[2]) if node else text.strip()
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return UNKNOWN
    return getattr(address, "ipv4_mapped", None) or address
