"""Who can take tasks on, by what the workers have told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from node.coordination.personas import fits
from protocol import PeerId

NOBODY: frozenset[PeerId] = frozenset()
# A node works with a handful of kinds and peers at a time; the answers for more are not worth their memory.
MAX_ANSWERS_KEPT = 1_000


@dataclass(slots=True)
class Worker:
    """Someone who can take tasks on: an executor of this node, a peer, or an agent that asks for a task.

    Attributes:
        peer_id: whose it is.
        kinds: what it can do; None when it has not said.
        slots: how many tasks of this node it takes at once.
        busy: how many it has.
        load: how many tasks it has in all, those of this node included, as far as it told; 0 for one of this node.
        trusted: whether it may be given tasks that did not name it.
        personas: who it can act as; None for this node when it does not coordinate, and does what it is given.
        own_load: how many tasks of this node it had when it told its load.
        capacity: how many tasks it executes at once, as far as it told; 0 when it has not.
        latency_ms: how long word takes to it and back; 0 for this node, and where nobody has measured it.
        busy_until: until when it has asked for nothing more, in milliseconds since the epoch.
        turn: when it was last chosen out of several; a greater number is later.
        agent: whether it is an outside worker of this node, known by the id in `peer_id`: it does what the node's own
            executors do.
    """

    peer_id: PeerId
    kinds: frozenset[str] | None
    slots: int
    busy: int = 0
    load: int = 0
    trusted: bool = True
    personas: frozenset[str] | None = None
    own_load: int = 0
    capacity: int = 0
    latency_ms: float = 0.0
    busy_until: int = 0
    turn: int = 0
    agent: bool = False

    @property
    def free(self) -> int:
        """How many more tasks it takes now."""
        return self.slots - self.busy

    def offers(self, kind: str) -> bool:
        """Whether it can do tasks of a kind, as far as it told."""
        return self.kinds is None or kind in self.kinds

    def acts_as(self, persona: str | None) -> bool:
        """Whether it can do tasks that want a persona; those that want none anybody can."""
        return fits(persona, self.personas)


class Place(NamedTuple):
    """Where the tasks of a queue may run.

    Attributes:
        target: the peer that was asked for; None for any.
        kind: what it must be able to do; empty when the target was named, because it decides for itself.
        elsewhere: whether another peer will do when the target is away.
        persona: who it must be able to act as; None for anybody.
        without: who would not have the tasks, and gets them only when nobody else is left.
    """

    target: PeerId | None
    kind: str
    elsewhere: bool
    persona: str | None = None
    without: frozenset[PeerId] = NOBODY


class Roster:
    """All workers, found by who they are.

    Args:
        workers: who can take tasks on; `busy` of each grows and shrinks while the roster is in use.
        own_id: this node.
    """

    def __init__(self, workers: Iterable[Worker], own_id: PeerId) -> None:
        self.workers = list(workers)
        self.own_id = own_id
        self._by_peer: dict[PeerId, list[Worker]] = {}
        self._able: dict[Place, Sequence[Worker]] = {}
        for worker in self.workers:
            self._by_peer.setdefault(own_id if worker.agent else worker.peer_id, []).append(worker)

    def knows(self, peer_id: PeerId | None) -> bool:
        """Whether somebody is among the workers."""
        return peer_id in self._by_peer

    def at(self, peer_id: PeerId | None) -> Sequence[Worker]:
        """Return the workers of somebody, of this node with its agents; all of them when it does not matter whose."""
        return self.workers if peer_id is None else self._by_peer.get(peer_id, ())

    def able(self, place: Place) -> Sequence[Worker]:
        """Return who may have the tasks of a place, free or not."""
        found = self._able.get(place)
        if found is None:
            if len(self._able) >= MAX_ANSWERS_KEPT:
                self._able.clear()
            found = self._able[place] = self.willing(place) or self.willing(place._replace(without=NOBODY))
        return found

    def willing(self, place: Place) -> Sequence[Worker]:
        """Return who may have the tasks of a place, and has not refused them."""
        target, kind, elsewhere, persona, without = place
        if target is not None:
            named = self._by_peer.get(target, ())
            if target == self.own_id:
                return [worker for worker in named if worker.offers(kind) and worker.acts_as(persona)]
            if named or not elsewhere:
                return named
        # Whoever reaches the port can say that it does anything: only those whom the operator named are chosen.
        return [
            worker
            for worker in self.workers
            if worker.trusted
            and worker.slots
            and worker.offers(kind)
            and worker.acts_as(persona)
            and worker.peer_id not in without
        ]
