"""What to start next: a pure decision over what waits and who has room.

Tasks wait in *queues*, one for each place where they may run. Within a queue the requesters take turns, the one with
the fewest running tasks first and then the one that was served longest ago, so that a peer that floods a node only
delays itself; among the tasks of one requester the higher priority goes first, then the older task.

The plan looks at records, never at history: telling the backlog the same record twice changes nothing, and after a
crash it is rebuilt by telling it every record of the store.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from protocol import PeerId, TaskId, TaskRecord, TaskStatus


@dataclass(slots=True)
class Worker:
    """Someone who can take tasks on: an executor of this node, or a peer.

    Attributes:
        peer_id: whose it is.
        kinds: what it can do; None when it has not said.
        slots: how many tasks of this node it takes at once.
        busy: how many it has.
        load: how many tasks of others it has, as far as it told.
    """

    peer_id: PeerId
    kinds: frozenset[str] | None
    slots: int
    busy: int = 0
    load: int = 0

    @property
    def free(self) -> int:
        """How many more tasks it takes now."""
        return self.slots - self.busy

    def offers(self, kind: str) -> bool:
        """Whether it can do tasks of a kind, as far as it told."""
        return self.kinds is None or kind in self.kinds


class Assignment(NamedTuple):
    """A task and who is to do it."""

    task_id: TaskId
    worker: Worker


class Decision(NamedTuple):
    """What to do now.

    Attributes:
        starts: what to start, in this order.
        expired: waiting tasks whose deadline has passed.
        wake_at: when to ask again although nothing happened, in milliseconds since the epoch; None for never.
    """

    starts: list[Assignment]
    expired: list[TaskId]
    wake_at: int | None


class Place(NamedTuple):
    """Where the tasks of a queue may run.

    Attributes:
        target: the peer that was asked for; None for any.
        kind: what it must be able to do; empty when the target was named, because it decides for itself.
        elsewhere: whether another peer will do when the target is away.
    """

    target: PeerId | None
    kind: str
    elsewhere: bool


class FairQueue:
    """Tasks that wait for the same place, by requester."""

    def __init__(self) -> None:
        self._heaps: dict[PeerId, list[tuple[int, int, int, TaskId]]] = {}
        self._served: dict[PeerId, int] = {}
        self._turn = 0
        self._entered = 0

    def __bool__(self) -> bool:
        return bool(self._heaps)

    def push(self, record: TaskRecord) -> None:
        """Let a task wait."""
        self._entered += 1
        entry = (-record.task.priority, record.created_at, self._entered, record.id)
        heapq.heappush(self._heaps.setdefault(record.requester, []), entry)

    def pop(self, running: Mapping[PeerId, int]) -> TaskId:
        """Take the next task out.

        Args:
            running: how many tasks each requester has running.
        """
        requester = self._next_requester(running)
        heap = self._heaps[requester]
        task_id = heapq.heappop(heap)[3]
        self._turn += 1
        self._served[requester] = self._turn
        if not heap:
            self._leave(requester)
        return task_id

    def _next_requester(self, running: Mapping[PeerId, int]) -> PeerId:
        if len(self._heaps) == 1:
            return next(iter(self._heaps))
        return min(self._heaps, key=lambda peer: (running.get(peer, 0), self._served.get(peer, 0)))

    def _leave(self, requester: PeerId) -> None:
        del self._heaps[requester]
        if not self._heaps:
            self._served.clear()


class Backlog:
    """The records that wait or run, arranged for the plan.

    Args:
        own_id: this node; tasks without a target may always run here.

    Attributes:
        tasks: those that wait.
    """

    def __init__(self, own_id: PeerId) -> None:
        self._own_id = own_id
        self._queues: dict[Place, FairQueue] = {}
        self.tasks: dict[TaskId, TaskRecord] = {}
        self._running: dict[TaskId, PeerId] = {}
        self._running_by_requester: dict[PeerId, int] = {}
        self._delayed: list[tuple[int, TaskId, int]] = []
        self._deadlines: list[tuple[int, TaskId]] = []

    @property
    def running(self) -> int:
        """How many tasks run."""
        return len(self._running)

    def update(self, record: TaskRecord) -> None:
        """Take note of how a task stands now."""
        if record.terminal:
            self.tasks.pop(record.id, None)
            self._stop(record.id)
        elif record.status is TaskStatus.PENDING:
            self._wait(record)
        elif record.id not in self._running:
            self.tasks.pop(record.id, None)
            self._run(record.id, record.requester)

    def _run(self, task_id: TaskId, requester: PeerId) -> None:
        self._running[task_id] = requester
        self._running_by_requester[requester] = self._running_by_requester.get(requester, 0) + 1

    def _wait(self, record: TaskRecord) -> None:
        self._stop(record.id)
        known = self.tasks.get(record.id)
        if known is not None and known.seq == record.seq:
            return
        self.tasks[record.id] = record
        if record.deadline is not None and known is None:
            heapq.heappush(self._deadlines, (record.deadline, record.id))
        if record.not_before:
            heapq.heappush(self._delayed, (record.not_before, record.id, record.seq))
        else:
            self._enqueue(record)

    def _stop(self, task_id: TaskId) -> None:
        requester = self._running.pop(task_id, None)
        if requester is None:
            return
        left = self._running_by_requester[requester] - 1
        if left:
            self._running_by_requester[requester] = left
        else:
            del self._running_by_requester[requester]

    def _enqueue(self, record: TaskRecord) -> None:
        place = self._place(record)
        queue = self._queues.get(place)
        if queue is None:
            queue = self._queues[place] = FairQueue()
        queue.push(record)

    def _place(self, record: TaskRecord) -> Place:
        task, target = record.task, record.target
        if target is None or target == self._own_id:
            return Place(target, task.kind, elsewhere=False)
        return Place(target, task.kind if task.retry.elsewhere else "", task.retry.elsewhere)

    def due(self, now: int) -> None:
        """Let the tasks whose back-off is over wait in their queues."""
        while self._delayed and self._delayed[0][0] <= now:
            _, task_id, seq = heapq.heappop(self._delayed)
            record = self.tasks.get(task_id)
            if record is not None and record.seq == seq:
                self._enqueue(record)

    def expired(self, now: int) -> list[TaskId]:
        """Take out the waiting tasks whose deadline has passed."""
        late = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, task_id = heapq.heappop(self._deadlines)
            if self.tasks.pop(task_id, None) is not None:
                late.append(task_id)
        return late

    def next_event(self) -> int | None:
        """Return when the next back-off or deadline ends, in milliseconds since the epoch; None when there is none."""
        times = [heap[0][0] for heap in (self._delayed, self._deadlines) if heap]
        return min(times) if times else None

    def queues(self) -> list[tuple[Place, FairQueue]]:
        """Return the queues in which something waits."""
        return [(place, queue) for place, queue in self._queues.items() if queue]

    def take(self, queue: FairQueue) -> TaskId | None:
        """Take the next task out of a queue; None when all that stood in it had gone already."""
        while queue:
            task_id = queue.pop(self._running_by_requester)
            if self.tasks.pop(task_id, None) is not None:
                return task_id
        return None


def plan(backlog: Backlog, workers: Iterable[Worker], *, own_id: PeerId, now: int) -> Decision:
    """Decide what to start.

    Tasks that are returned are no longer in the backlog; whoever does not start one tells the backlog its record again.

    Args:
        backlog: what waits.
        workers: who can take tasks on; `busy` grows by what is assigned.
        own_id: this node; preferred among equals for tasks without a target.
        now: milliseconds since the epoch.
    """
    expired = backlog.expired(now)
    backlog.due(now)
    starts: list[Assignment] = []
    everyone = list(workers)
    for place, queue in backlog.queues():
        able = _able(place, everyone, own_id)
        while (worker := _least_loaded(able, own_id)) is not None:
            task_id = backlog.take(queue)
            if task_id is None:
                break
            worker.busy += 1
            starts.append(Assignment(task_id, worker))
    return Decision(starts, expired, backlog.next_event())


def _able(place: Place, workers: Sequence[Worker], own_id: PeerId) -> list[Worker]:
    if place.target is not None:
        named = [worker for worker in workers if worker.peer_id == place.target]
        if place.target == own_id:
            return [worker for worker in named if worker.offers(place.kind)]
        if named or not place.elsewhere:
            return named
    return [worker for worker in workers if worker.offers(place.kind)]


def _least_loaded(able: Sequence[Worker], own_id: PeerId) -> Worker | None:
    if len(able) == 1:
        return able[0] if able[0].free > 0 else None
    free = [worker for worker in able if worker.free > 0]
    return min(free, key=lambda worker: _burden(worker, own_id), default=None)


def _burden(worker: Worker, own_id: PeerId) -> tuple[float, bool]:
    return ((worker.busy + worker.load) / worker.slots, worker.peer_id != own_id)
