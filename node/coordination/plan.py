"""What to start next: a pure decision over what waits and who has room.

Tasks wait in *queues*, one for each place where they may run. The requesters take turns, the one with the fewest
running tasks first and then the one that was served longest ago, so that a peer that floods a node only delays itself;
among the tasks of one requester the higher priority goes first, then the older task. That holds within a queue, and
between queues that want the same workers.

The plan looks at records, never at history: telling the backlog the same record twice changes nothing, and after a
crash it is rebuilt by telling it every record of the store.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from node.coordination.fair_queue import FairQueue, Turns, waits
from node.coordination.placement import Refusals, choose, is_anybody_free, next_room
from node.coordination.roster import NOBODY, Place, Roster, Worker
from protocol import PeerId, TaskId, TaskRecord, TaskStatus

# What tasks leave behind in heaps and queues is swept out when it outnumbers those that wait by so many: the sweeping
# costs next to nothing for each, and a small backlog is never swept.
SWEEP_SLACK = 64


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


class Backlog:
    """The records that wait or run, arranged for the plan.

    Args:
        own_id: this node; tasks without a target may always run here.
        rng: draws the workers that are compared, for tasks that any of several may have.

    Attributes:
        tasks: those that wait.
        refusals: who would not have which of them.
    """

    def __init__(self, own_id: PeerId, rng: random.Random | None = None) -> None:
        self._own_id = own_id
        self._rng = rng or random.Random()
        self._chosen = 0
        self.refusals = Refusals()
        self._turns = Turns()
        self._queues: dict[Place, FairQueue] = {}
        self.tasks: dict[TaskId, TaskRecord] = {}
        self._running: dict[TaskId, PeerId] = {}
        self._running_by_requester: dict[PeerId, int] = {}
        self._delayed: list[tuple[int, TaskId, int]] = []
        self._deadlines: list[tuple[int, TaskId]] = []
        self._left_behind = 0
        self._waiting_here = 0
        self._queues_limit = SWEEP_SLACK

    @property
    def waiting_here(self) -> int:
        """How many tasks wait that need not go to another peer."""
        return self._waiting_here

    @property
    def running(self) -> int:
        """How many tasks run."""
        return len(self._running)

    def update(self, record: TaskRecord) -> None:
        """Take note of how a task stands now."""
        if record.terminal:
            self._withdraw(record.id)
            self._stop(record.id)
            if self.refusals:
                self.refusals.forget(record.id)
        elif record.status is TaskStatus.PENDING:
            self._wait(record)
        elif record.id not in self._running:
            self._withdraw(record.id)
            self.run(record.id, record.requester)

    def run(self, task_id: TaskId, requester: PeerId) -> None:
        """Count a task as running, until it is told that it waits again or has ended."""
        self._running[task_id] = requester
        self._running_by_requester[requester] = self._running_by_requester.get(requester, 0) + 1

    def _wait(self, record: TaskRecord) -> None:
        self._stop(record.id)
        known = self.tasks.get(record.id)
        if known is not None and known.seq == record.seq:
            return
        self.tasks[record.id] = record
        self._waiting_here += known is None and self._may_run_here(record)
        if record.deadline is not None and known is None:
            heapq.heappush(self._deadlines, (record.deadline, record.id))
        if record.not_before:
            heapq.heappush(self._delayed, (record.not_before, record.id, record.seq))
        else:
            self._enqueue(record)
        if len(self._deadlines) > 2 * len(self.tasks) + SWEEP_SLACK:
            self._sweep_deadlines()

    def _withdraw(self, task_id: TaskId) -> None:
        """Let a task wait no more; what stands of it in a queue is left behind."""
        record = self.tasks.pop(task_id, None)
        if record is not None:
            self._waiting_here -= self._may_run_here(record)
            self._left_behind += 1
            if self._left_behind > len(self.tasks) + SWEEP_SLACK:
                self._sweep()

    def _sweep(self) -> None:
        self._left_behind = 0
        for queue in self._queues.values():
            queue.sweep(self.tasks)
        self._delayed = [entry for entry in self._delayed if waits(entry[1], entry[2], self.tasks)]
        heapq.heapify(self._delayed)

    def _sweep_deadlines(self) -> None:
        self._deadlines = [
            (record.deadline, record.id) for record in self.tasks.values() if record.deadline is not None
        ]
        heapq.heapify(self._deadlines)

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
        place = self.place(record)
        queue = self._queues.get(place)
        if queue is None:
            self._drop_idle_queues()
            queue = self._queues[place] = FairQueue(self._turns)
        queue.push(record)

    def _drop_idle_queues(self) -> None:
        """Forget places where nothing waits, now and then: a node sees no end of peers."""
        if len(self._queues) >= self._queues_limit:
            self._queues = dict(self.queues())
            self._queues_limit = 2 * len(self._queues) + SWEEP_SLACK

    def _may_run_here(self, record: TaskRecord) -> bool:
        return record.target is None or record.target == self._own_id

    def place(self, record: TaskRecord) -> Place:
        """Return where a task may run."""
        task, target = record.task, record.target
        without = self.refusals.by(record.id) if self.refusals else NOBODY
        if self._may_run_here(record):
            return Place(target, task.kind, False, task.persona, without)
        if task.retry.elsewhere:
            return Place(target, task.kind, True, task.persona, without)
        return Place(target, "", elsewhere=False)

    def choose(self, able: Sequence[Worker], now: int) -> Worker | None:
        """Return who of some workers takes the next task; None when nobody is free."""
        worker = choose(able, self._own_id, self._rng, now)
        if worker is not None and len(able) > 1:
            self._chosen += 1
            worker.turn = self._chosen
        return worker

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
            deadline, task_id = heapq.heappop(self._deadlines)
            record = self.tasks.get(task_id)
            if record is not None and record.deadline == deadline:
                self._withdraw(task_id)
                late.append(task_id)
        return late

    def next_event(self) -> int | None:
        """Return when the next back-off or deadline ends, in milliseconds since the epoch; None when there is none."""
        while self._delayed and not waits(self._delayed[0][1], self._delayed[0][2], self.tasks):
            heapq.heappop(self._delayed)
        while self._deadlines and self._deadlines[0][1] not in self.tasks:
            heapq.heappop(self._deadlines)
        times = [heap[0][0] for heap in (self._delayed, self._deadlines) if heap]
        return min(times) if times else None

    def queues(self) -> list[tuple[Place, FairQueue]]:
        """Return the queues in which something waits."""
        return [(place, queue) for place, queue in self._queues.items() if queue]

    def take(self, queue: FairQueue) -> TaskId | None:
        """Let the next task of a queue run; None when all that stood in it had gone already."""
        task_id = queue.pop(self._running_by_requester, self.tasks)
        if task_id is not None:
            record = self.tasks.pop(task_id)
            self._waiting_here -= self._may_run_here(record)
            self.run(task_id, record.requester)
        return task_id

    def waiting(self, now: int) -> list[TaskRecord]:
        """Return what waits in the queues for a worker, in the order in which one that could do all of it would."""
        self.due(now)
        standing = [record for _, queue in self.queues() for record in queue.standing(self.tasks)]
        in_time = (record for record in standing if record.deadline is None or record.deadline > now)
        return sorted(in_time, key=lambda record: (-record.task.priority, record.created_at))

    def claim(self, task_id: TaskId, now: int) -> TaskRecord | None:
        """Let a given task run out of turn; None when it does not stand in a queue, or is too late."""
        self.due(now)
        record = self.tasks.get(task_id)
        if record is None or (record.deadline is not None and record.deadline <= now):
            return None
        queue = self._queues.get(self.place(record))
        if queue is None or not any(one is record for one in queue.standing(self.tasks)):
            return None
        self._turns.take(record.requester)
        self._withdraw(task_id)
        self.run(task_id, record.requester)
        return record

    def strongest(self, queues: Iterable[FairQueue]) -> FairQueue:
        """Return the queue whose next task goes first; something stands in all of them."""
        return min(queues, key=lambda queue: queue.claim(self._running_by_requester))


def plan(backlog: Backlog, roster: Roster, *, now: int) -> Decision:
    """Decide what to start.

    Tasks that are returned count as running; whoever does not start one tells the backlog its record again.

    Args:
        backlog: what waits.
        roster: who can take tasks on; `busy` grows by what is assigned.
        now: milliseconds since the epoch.
    """
    expired = backlog.expired(now)
    backlog.due(now)
    lines = [_Line(queue, roster.able(place)) for place, queue in backlog.queues()]
    alone, rivals = _part(lines)
    starts = [start for line in alone for start in _serve(backlog, line, now)]
    starts += _serve_rivals(backlog, rivals, now)
    return Decision(starts, expired, _earlier(backlog.next_event(), _next_room(lines, now)))


def _next_room(lines: list[_Line], now: int) -> int | None:
    """Return when somebody may be asked again for whom tasks still wait."""
    times = [next_room(line.able, now) for line in lines if line.queue]
    return min((at for at in times if at is not None), default=None)


def _earlier(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one, other)


def start_at_once(backlog: Backlog, record: TaskRecord, roster: Roster, *, now: int) -> Worker | None:
    """Decide who starts a task that has just come, when it need not wait its turn.

    So a task that finds a free worker costs no queue and no wake-up.

    Returns:
        Who is to do it, `busy` counting it already; None when nobody is free, when others wait for the same workers, or
        when it is too late for the task: then the backlog is to be told of it, and the plan decides.
    """
    if record.deadline is not None and record.deadline <= now:
        return None
    able = roster.able(backlog.place(record))
    if any(_shared(able, roster.able(place)) for place, _ in backlog.queues()):
        return None
    worker = backlog.choose(able, now)
    if worker is not None:
        worker.busy += 1
        backlog.run(record.id, record.requester)
    return worker


def _shared(some: Sequence[Worker], others: Sequence[Worker]) -> bool:
    return any(one is other for one in some for other in others)


class _Line(NamedTuple):
    """A queue in which something waits, and who could take it on."""

    queue: FairQueue
    able: Sequence[Worker]


def _part(lines: list[_Line]) -> tuple[list[_Line], list[_Line]]:
    """Return the lines that have their workers for themselves, and those that want some of the same."""
    if len(lines) == 1:
        return lines, []
    wanted = Counter(id(worker) for line in lines for worker in line.able)
    alone: list[_Line] = []
    rivals: list[_Line] = []
    for line in lines:
        (rivals if any(wanted[id(worker)] > 1 for worker in line.able) else alone).append(line)
    return alone, rivals


def _serve(backlog: Backlog, line: _Line, now: int) -> Iterable[Assignment]:
    while (worker := backlog.choose(line.able, now)) is not None:
        task_id = backlog.take(line.queue)
        if task_id is None:
            return
        worker.busy += 1
        yield Assignment(task_id, worker)


def _serve_rivals(backlog: Backlog, lines: list[_Line], now: int) -> Iterable[Assignment]:
    while lines := [line for line in lines if line.queue and is_anybody_free(line.able, now)]:
        first = backlog.strongest(line.queue for line in lines)
        line = next(line for line in lines if line.queue is first)
        worker = backlog.choose(line.able, now)
        if worker is not None and (task_id := backlog.take(first)) is not None:
            worker.busy += 1
            yield Assignment(task_id, worker)
