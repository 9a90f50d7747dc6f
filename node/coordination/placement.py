"""Who of several workers gets the next task, and who is not asked again: pure decisions over what they have told.

Two of those with room are drawn, and the one with the smaller share of its capacity in use gets the task; of equals the
nearer one, then this node, then the one that was chosen longer ago. That spreads tasks nearly as evenly as asking all
of them would, and it is robust: what a peer tells of itself is old when it arrives, so many nodes that all chose the
least loaded one would bury it together; and a peer that lies about its load is drawn no more often than any other,
while what this node has given it counts whatever it says.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from node.coordination.roster import NOBODY, Worker
from protocol import REFUSED_REASONS, ErrorCode, PeerId, TaskId

# Peers that differ by less are equally near: a busy process takes tens of milliseconds to answer a heartbeat.
LATENCY_STEP_MS = 50.0
# Nobody is taken at its word for more than this: a machine that executes a thousand tasks at once is not ten times
# the choice of one that executes a hundred.
MAX_CAPACITY = 256
# Tasks that wait without the same peers share a queue, and a decision looks at every queue. Beyond so many different
# ones, a task only remembers who refused it last.
MAX_DIFFERENT_REFUSALS = 64

NO_ROOM = frozenset({ErrorCode.BUSY, ErrorCode.DRAINING})
"""A worker that says so has no room, whatever it told before; that is no word about the task."""


def choose(able: Sequence[Worker], own_id: PeerId, rng: random.Random, now: int) -> Worker | None:
    """Return who of some workers takes the next task; None when nobody is free.

    One that has just said that it is busy is left alone, unless it is the only one: then each task waits by itself.

    Args:
        able: who can do it.
        own_id: this node, preferred among equals.
        rng: draws the two that are compared.
        now: milliseconds since the epoch.
    """
    if len(able) == 1:
        return able[0] if able[0].free > 0 else None
    drawn = _draw_two(able, rng)
    if not all(_has_room(worker, now) for worker in drawn):
        drawn = _draw_two([worker for worker in able if _has_room(worker, now)], rng)
    return min(drawn, key=lambda worker: _burden(worker, own_id), default=None)


def is_anybody_free(able: Sequence[Worker], now: int) -> bool:
    """Whether `choose` would return somebody."""
    if len(able) == 1:
        return able[0].free > 0
    return any(_has_room(worker, now) for worker in able)


def _has_room(worker: Worker, now: int) -> bool:
    return worker.free > 0 and worker.busy_until <= now


def next_room(able: Sequence[Worker], now: int) -> int | None:
    """Return when the first of those that asked for nothing more may be asked again; None when nobody did."""
    return min((worker.busy_until for worker in able if worker.busy_until > now), default=None)


def _draw_two(workers: Sequence[Worker], rng: random.Random) -> Sequence[Worker]:
    if len(workers) <= 1:
        return workers
    first = int(rng.random() * len(workers))
    second = int(rng.random() * (len(workers) - 1))
    return workers[first], workers[second + (second >= first)]


def _burden(worker: Worker, own_id: PeerId) -> tuple[float, float, bool, int]:
    return (
        share_in_use(worker),
        worker.latency_ms // LATENCY_STEP_MS,
        worker.peer_id != own_id,
        worker.turn,
    )


def share_in_use(worker: Worker) -> float:
    """Return how busy a worker is, as a share of what it executes at once; above 1 tasks wait there.

    What this node has given it is counted here, and cannot be denied; what others have is what it told.
    """
    of_others = max(0, worker.load - worker.own_load)
    return (worker.busy + of_others) / max(1, min(worker.capacity or worker.slots, MAX_CAPACITY))


class Refusals:
    """Who would not have which task, so that it is not asked again while somebody else is left."""

    def __init__(self) -> None:
        self._refused_by: dict[TaskId, frozenset[PeerId]] = {}
        self._different: Counter[frozenset[PeerId]] = Counter()

    def __bool__(self) -> bool:
        return bool(self._refused_by)

    def by(self, task_id: TaskId) -> frozenset[PeerId]:
        """Return who refused a task."""
        return self._refused_by.get(task_id, NOBODY)

    def note(self, task_id: TaskId, peer_id: PeerId, reason: ErrorCode) -> None:
        """Take note of why an attempt ended, if that was a refusal."""
        if reason not in REFUSED_REASONS:
            return
        refused_by = self.by(task_id) | {peer_id}
        if refused_by not in self._different and len(self._different) >= MAX_DIFFERENT_REFUSALS:
            refused_by = frozenset({peer_id})
        self.forget(task_id)
        self._refused_by[task_id] = refused_by
        self._different[refused_by] += 1

    def forget(self, task_id: TaskId) -> None:
        """Drop what is known of a task."""
        former = self._refused_by.pop(task_id, None)
        if former is not None:
            self._different[former] -= 1
            if not self._different[former]:
                del self._different[former]
