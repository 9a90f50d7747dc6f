"""What waits to be saved in a Redis server, and in which groups it is saved."""

from __future__ import annotations

import pytest

from node.stores.redis.line import MAX_GROUPED_BYTES, MAX_GROUPED_TASKS, LastSeqs, Line
from node.testing import make_task
from protocol import ErrorCode, PeertaskError
from tests.node.stores.histories import life, submitted


def test_a_group_is_taken_in_order_and_bounded() -> None:
    """Small enough not to hold up the event loop; what is left is the next group."""
    line, changes = Line(), [submitted() for _ in range(MAX_GROUPED_TASKS + 5)]
    for change in changes:
        line.add((change,))
    assert line.take().changes() == changes[:MAX_GROUPED_TASKS]
    assert line.take().changes() == changes[MAX_GROUPED_TASKS:]
    assert line.take().empty


def test_large_tasks_go_one_by_one() -> None:
    """A server answers others in between."""
    line = Line()
    for _ in range(2):
        line.add((submitted(make_task("x" * MAX_GROUPED_BYTES)),))
    assert len(line.take().saves) == 1
    assert len(line.take().saves) == 1


def test_the_changes_of_a_task_go_together() -> None:
    """Its record is written once in a group, with all its facts."""
    line, first, second = Line(), life(), life()
    line.add(first[:2])
    line.add(second)
    line.add(first[2:])
    group = line.take()
    assert list(group.by_task()) == [first, second]
    assert group.changes() == [*first[:2], *second, *first[2:]]


def test_forgetting_stands_beside_the_changes_of_other_tasks() -> None:
    """A full node forgets one task for each that ends: that must not make groups of one."""
    line, ids = Line(), []
    for _ in range(10):
        history = life()
        line.add(history)
        ids.append(life()[0].record.id)
        line.add(ids[-1])
    group = line.take()
    assert len(group.saves) == 10
    assert group.forgets == ids


def test_a_task_that_comes_again_waits_for_the_next_group() -> None:
    """Within a group changes come before what is forgotten."""
    line, history = Line(), life()
    line.add(history)
    line.add(history[0].record.id)
    line.add(history[:1])
    assert len(line) == 3
    group = line.take()
    assert (group.changes(), group.forgets) == (history, [history[0].record.id])
    assert line.take().changes() == history[:1]


def test_numbers_must_follow() -> None:
    """All changes are taken in, or none."""
    seqs, history = LastSeqs(), life()
    seqs.take(history[:2])
    for wrong in (history[:1], history[1:2], history[3:], [history[2], history[2]]):
        with pytest.raises(PeertaskError) as refused:
            seqs.take(wrong)
        assert refused.value.code is ErrorCode.CONFLICT
    seqs.take(history[2:])
    seqs.forget(history[0].record.id)
    seqs.take(history)
