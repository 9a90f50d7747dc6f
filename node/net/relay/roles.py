"""What a node is to relays: one itself, or reached through some, or neither."""

from __future__ import annotations

from typing import NamedTuple

from protocol import PeerId


class Relaying(NamedTuple):
    """How a node has to do with relays; by default it only dials peers that are behind some.

    Attributes:
        service: whether peers may be reached through it.
        users: the only ones that may; everybody when there is none.
        relays: the addresses, with ``/p2p/ID``, of those through which it is to be reached itself.
    """

    service: bool = False
    users: frozenset[PeerId] = frozenset()
    relays: tuple[str, ...] = ()
