"""How many tasks a node keeps, and for how long."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterator
from dataclasses import dataclass

from node.config import MAX_QUEUED, RETENTION_BYTES, RETENTION_HOURS, RETENTION_RECORDS
from node.coordination.quotas import task_size
from protocol import TaskId, TaskRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """How much a manager keeps.

    Attributes:
        open_tasks: tasks of this node that have not ended, and as many of all its peers; above, `submit` says BUSY.
        finished_records: finished tasks; above, the oldest are forgotten.
        finished_bytes: prompts and results of finished tasks; above, the oldest are forgotten.
        finished_ms: how long a finished task is kept, in milliseconds.
    """

    open_tasks: int = MAX_QUEUED
    finished_records: int = RETENTION_RECORDS
    finished_bytes: int = RETENTION_BYTES
    finished_ms: int = round(RETENTION_HOURS * 3_600_000)


class FinishedTasks:
    """The tasks that have ended and are kept, the first that ended first.

    Args:
        capacity: how many are kept, and for how long.
        needed: those that others still need; they are kept in any case, and do not count.
    """

    def __init__(self, capacity: Capacity, needed: Container[TaskId] = ()) -> None:
        self._capacity = capacity
        self._needed = needed
        self._kept: deque[tuple[TaskId, int, int]] = deque()
        self._set_aside: dict[TaskId, tuple[TaskId, int, int]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept) + len(self._set_aside)

    def add(self, record: TaskRecord) -> None:
        """Keep one more; `surplus` tells what is too much then."""
        self._keep((record.id, record.updated_at, record_size(record)))

    def release(self, task_id: TaskId) -> None:
        """Take note that a task is not needed any more: from now on it is one of those that may be taken out."""
        entry = self._set_aside.pop(task_id, None)
        if entry is not None:
            self._keep(entry)

    def surplus(self) -> Iterator[TaskId]:
        """Take out the oldest, until there is room for the others."""
        while len(self._kept) > self._capacity.finished_records or self._bytes > self._capacity.finished_bytes:
            yield from self._take_oldest()

    def expired(self, now: int) -> Iterator[TaskId]:
        """Take out those that ended longer ago than they are kept; `now` in milliseconds since the epoch."""
        oldest = now - self._capacity.finished_ms
        while self._kept and self._kept[0][1] < oldest:
            yield from self._take_oldest()

    def _keep(self, entry: tuple[TaskId, int, int]) -> None:
        self._kept.append(entry)
        self._bytes += entry[2]

    def _take_oldest(self) -> Iterator[TaskId]:
        entry = self._kept.popleft()
        self._bytes -= entry[2]
        if entry[0] in self._needed:
            self._set_aside[entry[0]] = entry
        else:
            yield entry[0]


def record_size(record: TaskRecord) -> int:
    """Return about how many bytes the texts of a task and of its result hold."""
    result = record.result
    if result is None:
        return task_size(record.task)
    return task_size(record.task) + len(result.result) + sum(len(part.content) for part in result.artifacts)
