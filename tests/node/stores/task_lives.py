"""Lives of tasks, as the changes that they are made of."""

from __future__ import annotations

from node.interfaces import Change
from node.testing import START_MS, TEST_PEER
from protocol import Claimed, Completed, Started, Submitted, Task, TaskResult, Transition, advance, begin


def begun(task: Task) -> list[Change]:
    """The changes up to where a task executes."""
    submitted = Submitted(task, START_MS, TEST_PEER)
    first = Change(begin(submitted), submitted)
    claimed = Claimed(task.id, START_MS + 1, 1, TEST_PEER, START_MS + 30_000)
    return [first, *after(first, claimed, Started(task.id, START_MS + 2, 1))]


def after(last: Change, *facts: Transition) -> list[Change]:
    """The changes that follow on one."""
    changes = [last]
    for fact in facts:
        changes.append(Change(advance(changes[-1].record, fact), fact))
    return changes[1:]


def finished(task: Task, text: str = "done") -> list[Change]:
    """The changes of a whole life."""
    changes = begun(task)
    result = TaskResult(task.id, text, 6)
    return [*changes, *after(changes[-1], Completed(task.id, START_MS + 9, 1, result))]
