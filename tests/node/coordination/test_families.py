"""Which tasks are parts of which."""

# covers COORD-1

from __future__ import annotations

import itertools

from node.coordination.families import Families
from node.testing import make_task
from protocol import Task, TaskId, new_task_id

GOAL, ONE, TWO, PART = (new_task_id() for _ in range(4))


def child(task_id: TaskId, parent_id: TaskId | None) -> Task:
    """Return a task that is a part of another."""
    return make_task(id=task_id, parent_id=parent_id)


def test_descendants_are_found_over_all_generations_once() -> None:
    """Also when a family bites its own tail, which no check could see after a restart."""
    families = Families()
    assert not families
    for one, parent in ((ONE, GOAL), (TWO, GOAL), (PART, TWO), (GOAL, PART), (new_task_id(), None)):
        families.add(child(one, parent))
    assert families
    assert families.children(GOAL) == [ONE, TWO]
    assert families.descendants(GOAL) == [ONE, TWO, PART, GOAL]
    assert families.descendants(ONE) == []


def test_what_is_removed_leaves_nothing_behind() -> None:
    """A node sees no end of families."""
    families = Families()
    families.add(child(ONE, GOAL))
    families.add(child(TWO, GOAL))
    families.remove(child(ONE, GOAL))
    families.remove(child(ONE, GOAL))
    families.remove(child(PART, None))
    assert families.children(GOAL) == [TWO]
    families.remove(child(TWO, GOAL))
    families.remove(child(TWO, GOAL))
    assert not families


def test_a_long_line_of_generations_needs_no_recursion() -> None:
    """A chain of ten thousand is followed."""
    families = Families()
    ids = [new_task_id() for _ in range(10_000)]
    for parent, one in itertools.pairwise(ids):
        families.add(child(one, parent))
    assert families.descendants(ids[0]) == ids[1:]
