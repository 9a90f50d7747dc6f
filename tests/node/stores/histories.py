"""Changes of tasks, for the tests of stores."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from node.interfaces import Change, Store
from node.testing import TEST_PEER, make_task
from protocol import (
    Claimed,
    Completed,
    Fact,
    Progressed,
    Started,
    Submitted,
    Task,
    TaskId,
    TaskRecord,
    TaskResult,
    Transition,
    advance,
    begin,
)


def submitted(task: Task | None = None) -> Change:
    """Return the first change of a task."""
    fact = Submitted(task or make_task(), 1_000, TEST_PEER)
    return Change(begin(fact), fact)


def continued(last: Change, *facts: Transition) -> list[Change]:
    """Return the changes that follow on one."""
    changes = [last]
    for fact in facts:
        changes.append(Change(advance(changes[-1].record, fact), fact))
    return changes[1:]


def life(task: Task | None = None, reports: int = 0) -> list[Change]:
    """Return all changes of a task that is carried out, with some reports on the way."""
    task = task or make_task()
    first = submitted(task)
    progress = [Progressed(task.id, 4_000 + n, 1, 0.5, f"step {n}", 60_000) for n in range(reports)]
    completed = Completed(task.id, 9_000, 1, TaskResult(task.id, "done", 6))
    claimed = Claimed(task.id, 2_000, 1, TEST_PEER, 30_000)
    return [first, *continued(first, claimed, Started(task.id, 3_000, 1), *progress, completed)]


class Commits:
    """What a store has committed."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self._changed = trio.Event()

    def __call__(self, changes: Sequence[Change]) -> None:
        """Take in what is committed."""
        self.changes.extend(changes)
        self._changed.set()
        self._changed = trio.Event()

    async def reach(self, count: int) -> None:
        """Wait until so many changes are committed."""
        with trio.fail_after(30):
            while len(self.changes) < count:
                await self._changed.wait()


async def loaded(store: Store) -> list[TaskRecord]:
    """Return what a store keeps."""
    return [record async for record in store.load()]


async def facts_of(store: Store, task_id: TaskId, after_seq: int = 0) -> list[Fact]:
    """Return what a store keeps of a task."""
    return [fact async for fact in store.facts(task_id, after_seq)]
