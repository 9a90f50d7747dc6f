"""The pending tasks that wait for others, kept away from the plan until it is their turn.

Nothing of this is recorded: it follows from the records, so it cannot go stale, and after a restart it is found anew.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

from node.coordination.dependencies import Dependencies, Known, failure_of_dependency
from protocol import Failure, TaskId, TaskRecord, TaskStatus

# Deadlines of tasks that wait no more are swept out when they outnumber the others by so many.
SWEEP_SLACK = 64


class BlockedTasks:
    """Holds pending tasks back, and lets go of them or fails them as those that they depend on end.

    Args:
        dependencies: which open tasks depend on which.
        saved: finds the record of a task.
        fail: is told of a task that ends because of one that it depends on, and why.
    """

    def __init__(self, dependencies: Dependencies, saved: Known, fail: Callable[[TaskRecord, Failure], None]) -> None:
        self._dependencies = dependencies
        self._saved = saved
        self._fail = fail
        self._held: dict[TaskId, TaskRecord] = {}
        self._deadlines: list[tuple[int, TaskId]] = []

    def __len__(self) -> int:
        return len(self._held)

    def takes(self, record: TaskRecord) -> bool:
        """Whether a task that depends on others is not for the plan now: it is held, or has failed with one of them."""
        if record.status is not TaskStatus.PENDING or not self._dependencies.missing(record.id):
            return False
        self._hold(record)
        any(self._fails_with(dependency, record) for dependency in record.task.depends_on)
        return True

    def let_go(self, ended: TaskRecord) -> Iterator[TaskRecord]:
        """Take note that a task has ended; yield the held ones that wait for nothing any more, in the order of coming.

        Those that cannot be done without it fail. What depends on them is told when that is saved, so a long chain of
        failures needs no recursion.
        """
        self._held.pop(ended.id, None)
        for task_id in self._dependencies.dependents(ended.id):
            record = self._held.get(task_id)
            if record is None:
                continue
            if not self._dependencies.missing(task_id):
                del self._held[task_id]
                yield record
            elif ended.result is None:
                self._fails_with(ended.id, record)

    def expired(self, now: int) -> list[TaskId]:
        """Return the held tasks whose deadline has passed; each once."""
        late = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, task_id = heapq.heappop(self._deadlines)
            if task_id in self._held:
                late.append(task_id)
        return late

    def next_deadline(self) -> int | None:
        """Return the next deadline of a held task, in milliseconds since the epoch; None when there is none."""
        while self._deadlines and self._deadlines[0][1] not in self._held:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def _hold(self, record: TaskRecord) -> None:
        if record.deadline is not None and record.id not in self._held:
            if len(self._deadlines) > 2 * len(self._held) + SWEEP_SLACK:
                self._deadlines = [entry for entry in self._deadlines if entry[1] in self._held]
                heapq.heapify(self._deadlines)
            heapq.heappush(self._deadlines, (record.deadline, record.id))
        self._held[record.id] = record

    def _fails_with(self, dependency: TaskId, record: TaskRecord) -> bool:
        failure = failure_of_dependency(record.task, dependency, self._saved(dependency))
        if failure is not None:
            self._fail(record, failure)
        return failure is not None
