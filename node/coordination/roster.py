"""Who can take tasks on, and who of them is to have one: pure decisions over what the workers have told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from node.coordination.personas import fits
from protocol import PeerId


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
        agent: whether it is an outside worker of this node, known by the id in `peer_id`: it does what the node's own
            executors do.
        personas: whom it can act as; None when it does not look at personas.
    """

    peer_id: PeerId
    kinds: frozenset[str] | None
    slots: int
    busy: int = 0
    load: int = 0
    trusted: bool = True
    agent: bool = False
    personas: frozenset[str] | None = None

    @property
    def free(self) -> int:
        """How many more tasks it takes now."""
        return self.slots - self.busy

    def offers(self, kind: str) -> bool:
        """Whether it can do tasks of a kind, as far as it told."""
        return self.kinds is None or kind in self.kinds


class Place(NamedTuple):
    """Where the tasks of a queue may run.

    Attributes:
        target: the peer that was asked for; None for any.
        kind: what it must be able to do; empty when the target was named, because it decides for itself.
        elsewhere: whether another peer will do when the target is away.
        persona: whom it must be able to act as; None for anyone.
    """

    target: PeerId | None
    kind: str
    elsewhere: bool
    persona: str | None = None


class Roster:
    """All workers, found by who they are.

    Args:
        workers: who can take tasks on; `busy` of each grows and shrinks while the roster is in use.
        own_id: this node; preferred among equals for tasks without a target.
    """

    def __init__(self, workers: Iterable[Worker], own_id: PeerId) -> None:
        self._everyone = list(workers)
        self._own_id = own_id
        self._by_peer: dict[PeerId, list[Worker]] = {}
        for worker in self._everyone:
            self._by_peer.setdefault(own_id if worker.agent else worker.peer_id, []).append(worker)

    def able(self, place: Place) -> Sequence[Worker]:
        """Return who may have the tasks of a place, free or not."""
        target, kind, elsewhere, persona = place
        if target is not None:
            named = self._by_peer.get(target, ())
            if target == self._own_id:
                return [worker for worker in named if worker.offers(kind) and fits(persona, worker.personas)]
            if named or not elsewhere:
                return named
        # Whoever reaches the port can say that it does anything: only those whom the operator named are chosen.
        return [
            worker
            for worker in self._everyone
            if worker.trusted and worker.offers(kind) and fits(persona, worker.personas)
        ]

    def choose(self, able: Sequence[Worker]) -> Worker | None:
        """Return who of some workers takes the next task; None when nobody is free."""
        if len(able) == 1:
            return able[0] if able[0].free > 0 else None
        free = [worker for worker in able if worker.free > 0]
        return min(free, key=self._burden, default=None)

    def _burden(self, worker: Worker) -> tuple[float, bool]:
        return max(worker.busy, worker.load) / worker.slots, worker.peer_id != self._own_id
