"""The changes of tasks, as a manager hands them to a store."""

from __future__ import annotations

from node.interfaces import Change
from node.testing import START_MS, TEST_PEER, make_task
from protocol import Claimed, Completed, Started, Submitted, Task, TaskResult, Transition, advance, begin


def birth(task: Task | None = None, at: int = START_MS) -> Change:
    """The first change of a task."""
    submitted = Submitted(task or make_task(), at, TEST_PEER, TEST_PEER)
    return Change(begin(submitted), submitted)


def continued(last: Change, *facts: Transition) -> list[Change]:
    """The changes that follow on one."""
    changes = [last]
    for fact in facts:
        changes.append(Change(advance(changes[-1].record, fact), fact))
    return changes[1:]


def claim(last: Change) -> list[Change]:
    """The two changes after which a task executes."""
    record = last.record
    at, attempt = record.updated_at + 1, record.attempt + 1
    return continued(last, Claimed(record.id, at, attempt, TEST_PEER, at + 30_000), Started(record.id, at + 1, attempt))


def completion(last: Change, text: str = "done") -> list[Change]:
    """The change that ends a task."""
    record = last.record
    return continued(last, Completed(record.id, record.updated_at + 5, record.attempt, TaskResult(record.id, text, 5)))


def life(task: Task | None = None, at: int = START_MS) -> list[Change]:
    """All four changes of a task that completes."""
    changes = [birth(task, at)]
    changes += claim(changes[-1])
    return changes + completion(changes[-1])
