"""Which of this node's peers to tell each other of, and when: only what is new. Pure; the clock is a parameter."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Final, NamedTuple

from protocol import MAX_PEERS_TOLD, PeerHint, PeerId

# As many as a node keeps of what one other tells.
MAX_INTRODUCED: Final = 256


class Pace(NamedTuple):
    """How often peers are told of each other, in seconds.

    Attributes:
        gather_s: how long changes are gathered before anybody is told.
        again_s: when a peer that has been told of some is told of more; while many come at once, that is what counts.
        refresh_s: when what has not changed is told again.
        ttl_s: how long it is good for.
    """

    gather_s: float = 2.0
    again_s: float = 15.0
    refresh_s: float = 900.0
    ttl_s: float = 2_100.0


class _Word(NamedTuple):
    """What was told of a peer.

    Attributes:
        version: of what is known about it; see `Introductions.update`.
        at: when, in seconds.
    """

    version: int
    at: float


class Introductions:
    """What has been told to whom.

    Args:
        pace: how often.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._peers: dict[PeerId, PeerHint] = {}
        self._versions: dict[PeerId, int] = {}
        self._count = 0
        self._told: dict[PeerId, dict[PeerId, _Word]] = {}
        self._next_at: dict[PeerId, float] = {}

    def update(self, peers: Mapping[PeerId, PeerHint]) -> None:
        """Take in who is connected now. How busy they are is told with other news, but is none itself."""
        for peer_id, hint in peers.items():
            known = self._peers.get(peer_id)
            if known is None or _essence(known) != _essence(hint):
                self._count += 1
                self._versions[peer_id] = self._count
        for peer_id in self._peers.keys() - peers.keys():
            del self._versions[peer_id]
        self._peers = dict(peers)

    def due(self, receiver: PeerId, already: Container[PeerId], now: float) -> list[PeerHint]:
        """Return what to tell a peer now, and take it as told; what does not fit a frame is due at once.

        Args:
            receiver: the peer.
            already: whom it has told of itself: it knows them as well as this node does.
            now: in seconds.
        """
        if now < self._next_at.get(receiver, now):
            return []
        told = self._told.setdefault(receiver, {})
        for gone in told.keys() - self._peers.keys():
            del told[gone]
        wanted = [peer_id for peer_id in self._peers if self._is_due(told.get(peer_id), peer_id, now)]
        wanted = [peer_id for peer_id in wanted if peer_id != receiver and peer_id not in already]
        room = MAX_INTRODUCED - len(told)
        chosen = [peer_id for index, peer_id in enumerate(wanted) if peer_id in told or index < room][:MAX_PEERS_TOLD]
        if chosen:
            self._next_at[receiver] = now + (0 if len(chosen) == MAX_PEERS_TOLD else self._pace.again_s)
        for peer_id in chosen:
            told[peer_id] = _Word(self._versions[peer_id], now)
        return [self._peers[peer_id] for peer_id in chosen]

    def forget(self, receiver: PeerId) -> None:
        """Drop what was told to a peer whose session is over: the next one begins anew."""
        self._told.pop(receiver, None)
        self._next_at.pop(receiver, None)

    def _is_due(self, word: _Word | None, peer_id: PeerId, now: float) -> bool:
        return word is None or word.version != self._versions[peer_id] or now - word.at >= self._pace.refresh_s


def _essence(hint: PeerHint) -> object:
    return hint.addresses, hint.advert.kinds, hint.advert.personas, hint.advert.slots
