"""From how far an address can be reached. Pure."""

from __future__ import annotations

from enum import IntEnum
from ipaddress import ip_address


class Reach(IntEnum):
    """From how far an address can be reached."""

    LOCAL = 1
    PRIVATE = 2
    PUBLIC = 3


def reach_of(host: str) -> Reach | None:
    """Return from how far an IP address can be reached; None when it is no machine's. A name may be anywhere."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return Reach.PUBLIC
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_unspecified or address.is_multicast:
        return None
    if address.is_loopback or address.is_link_local:
        return Reach.LOCAL
    return Reach.PUBLIC if address.is_global else Reach.PRIVATE
