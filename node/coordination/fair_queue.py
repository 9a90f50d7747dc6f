"""Tasks that wait for the same workers, and whose turn it is."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping

from protocol import PeerId, TaskId, TaskRecord

# Whoever was served longer ago than so many others has waited long enough to go first: its turn need not be remembered.
MAX_REMEMBERED_TURNS = 1_000

_Entry = tuple[int, int, int, TaskId, int]
"""Priority, negated; age; order of coming; the task, and its number of facts then. A plain tuple, for the speed."""


class Turns:
    """When each requester was served last, in all queues."""

    def __init__(self) -> None:
        self._last: dict[PeerId, int] = {}
        self._number = 0

    def of(self, requester: PeerId) -> int:
        """Return the number of its last turn; 0 when it had none."""
        return self._last.get(requester, 0)

    def take(self, requester: PeerId) -> None:
        """Note that it is served."""
        self._number += 1
        self._last[requester] = self._number
        if len(self._last) > MAX_REMEMBERED_TURNS:
            late = self._number - MAX_REMEMBERED_TURNS // 2
            self._last = {peer: turn for peer, turn in self._last.items() if turn > late}


class FairQueue:
    """Tasks that wait for the same place, by requester.

    Args:
        turns: when each requester was served.
    """

    def __init__(self, turns: Turns) -> None:
        self._heaps: dict[PeerId, list[_Entry]] = {}
        self._turns = turns
        self._entered = 0

    def __bool__(self) -> bool:
        return bool(self._heaps)

    def push(self, record: TaskRecord) -> None:
        """Let a task wait."""
        self._entered += 1
        entry = (-record.task.priority, record.created_at, self._entered, record.id, record.seq)
        heapq.heappush(self._heaps.setdefault(record.requester, []), entry)

    def claim(self, running: Mapping[PeerId, int]) -> tuple[int, int, int, int]:
        """Return how strong a claim the next task has: of several queues, the one with the least goes first."""
        requester = self._next_requester(running)
        urgency, created_at, *_ = self._heaps[requester][0]
        return running.get(requester, 0), self._turns.of(requester), urgency, created_at

    def pop(self, running: Mapping[PeerId, int], waiting: Mapping[TaskId, TaskRecord]) -> TaskId | None:
        """Take the next task out.

        Args:
            running: how many tasks each requester has running.
            waiting: the tasks that still wait; others are dropped.
        """
        while self._heaps:
            requester = self._next_requester(running)
            heap = self._heaps[requester]
            *_, task_id, seq = heapq.heappop(heap)
            if not heap:
                del self._heaps[requester]
            if waits(task_id, seq, waiting):
                self._turns.take(requester)
                return task_id
        return None

    def _next_requester(self, running: Mapping[PeerId, int]) -> PeerId:
        if len(self._heaps) == 1:
            return next(iter(self._heaps))
        return min(self._heaps, key=lambda peer: (running.get(peer, 0), self._turns.of(peer)))

    def standing(self, waiting: Mapping[TaskId, TaskRecord]) -> Iterator[TaskRecord]:
        """Yield the tasks that stand in it, in no order."""
        for heap in self._heaps.values():
            for *_, task_id, seq in heap:
                if waits(task_id, seq, waiting):
                    yield waiting[task_id]

    def sweep(self, waiting: Mapping[TaskId, TaskRecord]) -> None:
        """Drop what does not wait any more."""
        swept = {
            requester: [entry for entry in heap if waits(entry[3], entry[4], waiting)]
            for requester, heap in self._heaps.items()
        }
        self._heaps = {requester: heap for requester, heap in swept.items() if heap}
        for heap in self._heaps.values():
            heapq.heapify(heap)


def waits(task_id: TaskId, seq: int, waiting: Mapping[TaskId, TaskRecord]) -> bool:
    """Whether a task is among those that wait, and has been since it had this number of facts."""
    record = waiting.get(task_id)
    return record is not None and record.seq == seq
