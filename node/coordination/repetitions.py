"""Tasks that are done again in place of others, for those that depend on the first ones."""

from __future__ import annotations

from collections.abc import Callable

from node.coordination.dead_letters import retry_of
from node.coordination.dependencies import Dependencies
from protocol import Task, TaskId, TaskRecord


class Repetitions:
    """Which tasks repeat which, and lets those that depend on a task wait for the one that repeats it.

    Args:
        dependencies: which open tasks depend on which.
        latest: finds the record of a task.
    """

    __slots__ = ("_by_repeated", "_dependencies", "_latest")

    def __init__(self, dependencies: Dependencies, latest: Callable[[TaskId], TaskRecord | None]) -> None:
        self._dependencies = dependencies
        self._latest = latest
        self._by_repeated: dict[TaskId | None, TaskId] = {}

    def __bool__(self) -> bool:
        return bool(self._by_repeated)

    def note(self, record: TaskRecord) -> None:
        """Let those who wait for a task that did not complete wait for this one, when its requester has it repeated."""
        named = retry_of(record.task)
        repeated = None if named is None else self._latest(named)
        if repeated is None or repeated.failure is None or repeated.requester != record.requester:
            return
        self._by_repeated[repeated.id] = record.id
        self._dependencies.repeat(record.id, repeated.id)
        if record.result is not None and record.id in self._dependencies.awaited:
            self._dependencies.complete(record.id)

    def note_those_of(self, task_id: TaskId) -> None:
        """Let those who wait for a task wait for the last one that repeats it, if it was repeated before they came."""
        again = self._by_repeated.get(task_id)
        while again is not None:
            record = self._latest(again)
            if record is None:
                return
            self.note(record)
            again = self._by_repeated.get(again)

    def forget(self, task: Task) -> None:
        """Drop what is known of a task that repeats another one."""
        self._by_repeated.pop(retry_of(task), None)
