"""The peers that registered at this node, so that others find them. Pure; the clock is a parameter."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from node.net.allowance import Allowances, Rate
from protocol import MAX_PEERS_TOLD, Discover, PeerAdvert, PeerHint, PeerId, Registered

# One megabyte of usual registrations.
MAX_REGISTRATIONS: Final = 1_024
# An office or a lab behind one address; whoever draws many identities there gets no more than this of the places.
MAX_REGISTRATIONS_PER_ADDRESS: Final = 64
# Kept without another word: a node that is gone is told of for so long at the most.
MAX_REGISTRATION_S: Final = 3_600.0
# A node asks and registers once every few minutes; an answer is some twenty times as large as its question.
REQUEST_RATE: Final = Rate(per_second=0.2, burst=8)


class _Registration(NamedTuple):
    hint: PeerHint
    place: str
    expires_at: float


class Registry:
    """Who has registered.

    Args:
        rng: chooses when there are more than one answer holds.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._registrations: dict[PeerId, _Registration] = {}
        self._places: Counter[str] = Counter()
        self._requests = Allowances(REQUEST_RATE)

    def __len__(self) -> int:
        return len(self._registrations)

    def register(
        self,
        peer_id: PeerId,
        ttl_ms: int,
        now: float,
        *,
        addresses: Sequence[str],
        advert: PeerAdvert,
        place: str,
    ) -> Registered:
        """Keep a peer for a time, in place of what was kept of it, and return the answer to it.

        Args:
            peer_id: the authenticated peer that asks.
            ttl_ms: for how long it asks; 0 ends its registration.
            now: in seconds.
            addresses: its own.
            advert: what it offers.
            place: the network address that it comes from; empty for this machine, which has no quota.
        """
        self._drop_expired(now)
        if not self._requests.take(peer_id, 1, now):
            return Registered(message=f"you ask more than {REQUEST_RATE.per_second:g} times a second")
        refusal = self._objection(peer_id, ttl_ms, addresses, place)
        if refusal:
            return Registered(message=refusal)
        self._drop(peer_id)
        if not ttl_ms:
            return Registered()
        kept_s = min(ttl_ms / 1000, MAX_REGISTRATION_S)
        hint = PeerHint(peer_id=peer_id, addresses=tuple(addresses), advert=advert, ttl_ms=round(kept_s * 1000))
        self._registrations[peer_id] = _Registration(hint, place, now + kept_s)
        self._places[place] += 1
        return Registered(hint.ttl_ms)

    def find(self, asker: PeerId, question: Discover, now: float) -> tuple[PeerHint, ...]:
        """Return who is registered, as many as a frame holds; nobody when the peer asks too often."""
        self._drop_expired(now)
        if not self._requests.take(asker, 1, now):
            return ()
        found = [
            replace(hint, ttl_ms=max(1, round((expires_at - now) * 1000)))
            for peer_id, (hint, _, expires_at) in self._registrations.items()
            if peer_id != asker and (question.kind is None or question.kind in hint.advert.kinds)
        ]
        return tuple(found if len(found) <= MAX_PEERS_TOLD else self._rng.sample(found, MAX_PEERS_TOLD))

    def _objection(self, peer_id: PeerId, ttl_ms: int, addresses: Sequence[str], place: str) -> str:
        known = self._registrations.get(peer_id)
        if not ttl_ms:
            return ""
        if not addresses:
            return "your Hello names no address where others could dial you"
        if (
            place
            and self._places[place] - (known is not None and known.place == place) >= MAX_REGISTRATIONS_PER_ADDRESS
        ):
            return f"already {MAX_REGISTRATIONS_PER_ADDRESS} peers from {place} are registered"
        if known is None and len(self._registrations) >= MAX_REGISTRATIONS:
            return f"already {MAX_REGISTRATIONS:,} peers are registered"
        return ""

    def _drop_expired(self, now: float) -> None:
        for peer_id in [peer_id for peer_id, kept in self._registrations.items() if kept.expires_at <= now]:
            self._drop(peer_id)
        self._requests.forget_idle(now)

    def _drop(self, peer_id: PeerId) -> None:
        kept = self._registrations.pop(peer_id, None)
        if kept is not None:
            self._places[kept.place] -= 1
            if not self._places[kept.place]:
                del self._places[kept.place]
