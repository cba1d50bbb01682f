"""Sites: the addresses that one client may own, and that count as one."""

from functools import lru_cache
from ipaddress import IPv6Address, ip_network
from time import monotonic

from core.settings.networks import Address

MANY_64 = 16
"""With this many active /64 networks, their whole /56 counts as one client.

Providers assign a household a /64, a /56 or a /48; otherwise one could pose as 65,536 clients.
"""
MANY_56 = 32
"""With this many active /56 networks, their whole /48 counts as one client."""
MEMORY_S = 3600
"""How long the networks seen within a wider one are remembered."""
MAX_REMEMBERED = 1024
"""How many wide networks are remembered; each takes some kilobytes at most."""


class Sites:
    """Names the site of an address: an IPv4 address, or an IPv6 network of /64, /56 or /48."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], set[int]] = {}
        self._forget_at = 0.0

    def of(self, address: Address) -> str:
        """Return the site of `address`, such as `192.0.2.1` or `2001:db8::/64`."""
        if not isinstance(address, IPv6Address):
            return str(address)
        if monotonic() >= self._forget_at:
            self._seen.clear()
            self._forget_at = monotonic() + MEMORY_S
        network = int(address) >> 64
        is_56 = self._has_many(56, network, MANY_64)
        is_48 = self._has_many(48, network >> 8, MANY_56)
        return _network(address, 48 if is_48 else 56 if is_56 else 64)

    def _has_many(self, prefix: int, network: int, many: int) -> bool:
        """Remember `network`, and return whether the wider one around it has many."""
        key = prefix, network >> 8
        networks = self._seen.get(key)
        if networks is None:
            if len(self._seen) >= MAX_REMEMBERED:
                del self._seen[next(iter(self._seen))]
            networks = self._seen[key] = set()
        if len(networks) < many:
            networks.add(network)
        return len(networks) >= many


@lru_cache(maxsize=1024)
def _network(address: IPv6Address, prefix: int) -> str:
    return str(ip_network((address, prefix), strict=False))
