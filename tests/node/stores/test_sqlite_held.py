"""What nobody waits for is held back until its task ends, and for a bounded time."""

from __future__ import annotations

import math

import pytest

from node.stores.sqlite.batch import Forgotten
from node.stores.sqlite.held import HELD_S, HeldItems, may_wait
from tests.node.stores.lives import birth, claim, life


def test_the_changes_of_a_task_wait_together() -> None:
    """However they come in, they leave as one, in order; another task's stay."""
    changes, other, held = life(), birth(), HeldItems()
    held.add(changes[:1], 0)
    held.add((other,), 0)
    held.add(changes[1:3], 0)
    assert held.take(changes[0].record.id) == changes[:3]
    assert held.take(changes[0].record.id) == []
    assert held.take_all() == [[other]]
    assert not held


def test_a_task_waits_from_its_first_change_on() -> None:
    """What comes later does not make it wait longer."""
    first, second, held = life(), birth(), HeldItems()
    held.add(first[:1], 10)
    held.add((second,), 11)
    held.add(first[1:2], 11)
    assert held.next_due == 10 + HELD_S
    assert held.take_due(10) == []
    assert held.take_due(10 + HELD_S) == [first[:2]]
    assert held.take_due(11 + HELD_S) == [[second]]
    assert not held
    assert held.next_due == math.inf


def test_what_is_taken_is_due_no_more() -> None:
    """The next task that waits is the first one then."""
    first, second, held = birth(), birth(), HeldItems()
    held.add((first,), 0)
    held.add((second,), 1)
    held.take(first.record.id)
    assert held.next_due == 1 + HELD_S


def test_a_forgetting_is_taken_before_the_changes_of_a_task_that_comes_again() -> None:
    """It would be forgotten otherwise."""
    change, held = birth(), HeldItems()
    forgotten = Forgotten([change.record.id])
    held.forget(forgotten, 0)
    held.add((change,), 0)
    assert held.next_due == HELD_S
    assert held.take_due(HELD_S) == [forgotten, [change]]
    held.forget(forgotten, 0)
    held.add((change,), 0)
    assert held.take_all() == [forgotten, [change]]
    assert held.next_due == math.inf


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_the_end_of_a_task_does_not_wait(length: int) -> None:
    """Whoever asked for it does."""
    assert may_wait(life()[:length]) is (length < 4)
    assert may_wait(claim(birth()))
