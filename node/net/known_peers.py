"""Whom others have told of: hints, bounded and with an end. Pure; the clock is a parameter.

What a peer says of itself is proven by its connection, and kept in the address book. What it says of others is a hint:
it is kept apart, under the name of whoever gave it, never in place of what a peer or the operator said, and whoever
dials it finds out who really answers. A node does not pass hints on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, KeysView
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, NamedTuple

from node.coordination.reach import Reach, reach_of
from node.interfaces import PeerSource
from node.net.address_book import MAX_ADDRESSES_PER_PEER, addresses_of
from node.net.addresses import KEPT_ENDPOINTS, parse_endpoint
from node.net.allowance import Allowances, Rate
from protocol import PeerAdvert, PeerHint, PeerId

# One that knows more peers than this is asked when one of them is wanted; and it cannot crowd out what others told.
MAX_HINTS_PER_SOURCE: Final = 256
# 16 MB of the longest names and addresses, 1 MB of usual ones.
MAX_HINTS: Final = 2_000
# More kinds or personas than these do not help to choose a peer; the peer itself tells all, once it is connected.
MAX_HINTED_NAMES: Final = 32
# Only what came straight from one that knows the peer: what went further is older, and nobody answers for it.
MAX_HOPS: Final = 1
# The peers of a large network at once, and then what changes in it; the rest of a flood is dropped.
HINT_RATE: Final = Rate(per_second=8, burst=512)


class Origin(NamedTuple):
    """Where hints come from.

    Attributes:
        source: of which sort.
        peer_id: who told; None when it was no peer.
    """

    source: PeerSource
    peer_id: PeerId | None = None


@dataclass(frozen=True, slots=True)
class Hint:
    """Word of a peer.

    Attributes:
        addresses: where it may be, with ``/p2p/ID``.
        advert: what it offers, as far as was told.
        expires_at: when this is too old, in seconds of the caller's clock.
    """

    addresses: tuple[str, ...]
    advert: PeerAdvert
    expires_at: float


class KnownPeers:
    """The hints of one node.

    Args:
        own_id: the node; what others say of it is nothing new.
    """

    def __init__(self, own_id: PeerId) -> None:
        self._own_id = own_id
        self._by_peer: dict[PeerId, dict[Origin, Hint]] = {}
        self._by_origin: dict[Origin, dict[PeerId, None]] = {}
        self._size = 0
        self._allowances = Allowances(HINT_RATE)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[PeerId]:
        return iter(self._by_peer)

    def hear(self, origin: Origin, hints: Iterable[PeerHint], now: float, reach: Reach = Reach.LOCAL) -> int:
        """Take a note of hints, and return how many are kept.

        Left out are: what is about this node or the one that tells, has come too far, or has no address that can be the
        peer's own; addresses nearer than `reach`; and what exceeds the rate. The oldest word of the same origin gives
        way to a new one, and above the limit for all that of the origin which told most.

        Args:
            origin: who tells.
            hints: what is told; counted from now.
            now: in seconds.
            reach: from how far the origin came: whoever is elsewhere knows nothing of addresses of this machine.
        """
        told = list(hints)
        granted = self._allowances.take(origin.peer_id or origin.source, len(told), now)
        kept = 0
        for hint in told[:granted]:
            if hint.peer_id not in {self._own_id, origin.peer_id} and hint.hops <= MAX_HOPS:
                addresses = _within(addresses_of(hint.peer_id, hint.addresses), reach)
                if addresses:
                    self._keep(origin, hint.peer_id, Hint(addresses, brief(hint.advert), now + hint.ttl_ms / 1000))
                    kept += 1
        return kept

    def addresses(self, peer_id: PeerId, now: float) -> tuple[str, ...]:
        """Return where a peer may be, as far as was told."""
        found = (address for hint in self._valid(peer_id, now).values() for address in hint.addresses)
        return tuple(dict.fromkeys(found))[:MAX_ADDRESSES_PER_PEER]

    def origins(self, peer_id: PeerId, now: float) -> tuple[Origin, ...]:
        """Return who tells of a peer."""
        return tuple(self._valid(peer_id, now))

    def advert(self, peer_id: PeerId, now: float) -> PeerAdvert | None:
        """Return what a peer offers, by the word that will be good longest."""
        hints = self._valid(peer_id, now).values()
        return max(hints, key=lambda hint: hint.expires_at).advert if hints else None

    def told_by(self, peer_id: PeerId) -> KeysView[PeerId]:
        """Return whom a peer has told of, as one that it is connected to."""
        return self._by_origin.get(Origin(PeerSource.PEER, peer_id), {}).keys()

    def drop_expired(self, now: float) -> None:
        """Forget what is too old."""
        for peer_id, hints in list(self._by_peer.items()):
            for origin in [origin for origin, hint in hints.items() if hint.expires_at <= now]:
                self._drop(origin, peer_id)
        self._allowances.forget_idle(now)

    def _valid(self, peer_id: PeerId, now: float) -> dict[Origin, Hint]:
        hints = self._by_peer.get(peer_id, {})
        return {origin: hint for origin, hint in hints.items() if hint.expires_at > now}

    def _keep(self, origin: Origin, peer_id: PeerId, hint: Hint) -> None:
        told = self._by_origin.get(origin, {})
        if peer_id in told:
            self._drop(origin, peer_id)
        elif len(told) >= MAX_HINTS_PER_SOURCE:
            self._drop(origin, next(iter(told)))
        elif self._size >= MAX_HINTS:
            largest = max(self._by_origin, key=lambda one: len(self._by_origin[one]))
            self._drop(largest, next(iter(self._by_origin[largest])))
        self._by_peer.setdefault(peer_id, {})[origin] = hint
        self._by_origin.setdefault(origin, {})[peer_id] = None
        self._size += 1

    def _drop(self, origin: Origin, peer_id: PeerId) -> None:
        del self._by_peer[peer_id][origin]
        if not self._by_peer[peer_id]:
            del self._by_peer[peer_id]
        del self._by_origin[origin][peer_id]
        if not self._by_origin[origin]:
            del self._by_origin[origin]
        self._size -= 1


@lru_cache(maxsize=KEPT_ENDPOINTS)
def _within(addresses: tuple[str, ...], reach: Reach) -> tuple[str, ...]:
    return tuple(address for address in addresses if (reach_of(parse_endpoint(address).host) or 0) >= reach)


def brief(advert: PeerAdvert) -> PeerAdvert:
    """Return as much of an advert as is told of others, and kept."""
    if max(len(advert.kinds), len(advert.personas)) <= MAX_HINTED_NAMES:
        return advert
    return replace(advert, kinds=advert.kinds[:MAX_HINTED_NAMES], personas=advert.personas[:MAX_HINTED_NAMES])
