"""What agents may claim, and in which order: the queues of the plan, and those who stand at them."""

from __future__ import annotations

from typing import Any

import pytest

from node.coordination.personas import fits
from node.coordination.plan import Backlog, plan, start_at_once
from node.coordination.roster import Roster, Worker
from node.testing import START_MS, make_task
from protocol import PeerId, RetryPolicy, Submitted, TaskRecord, begin

OWN, ELSEWHERE, AGENT = PeerId("own"), PeerId("elsewhere"), PeerId("agent-1")


def record(number: int = 0, *, target: PeerId | None = None, deadline: int | None = None, **fields: Any) -> TaskRecord:
    """A task for agents that waits; a greater number is younger."""
    task = make_task(f"prompt {number}", **{"kind": "agent", **fields})
    return begin(Submitted(task, START_MS + number, OWN, target, deadline))


def backlog_of(*records: TaskRecord) -> Backlog:
    """A backlog in which these wait."""
    backlog = Backlog(OWN)
    for one in records:
        backlog.update(one)
    return backlog


def agent(*kinds: str, persona: str | None = None) -> Worker:
    """An agent that asks for one task."""
    personas = None if persona is None else frozenset({persona})
    return Worker(AGENT, frozenset(kinds or {"agent"}), 1, agent=True, personas=personas)


@pytest.mark.parametrize(
    ("wanted", "declared", "fitting"),
    [
        (None, None, True),
        (None, ("writer",), True),
        ("writer", None, True),
        ("writer", ("writer", "painter"), True),
        ("writer", ("painter",), False),
        ("writer", (), False),
    ],
)
def test_who_fits_a_persona(wanted: str | None, declared: tuple[str, ...] | None, fitting: bool) -> None:  # noqa: FBT001
    """A task for nobody in particular fits everybody; a node that does not coordinate does what it is given."""
    assert fits(wanted, declared) is fitting


# A task, and whether an agent of kind "agent" that acts as "writer" may have it.
TASKS = {
    "of its kind": (record(), True),
    "asked of this node": (record(target=OWN), True),
    "of its persona": (record(persona="writer"), True),
    "of its persona, asked of this node": (record(persona="writer", target=OWN), True),
    "of another kind": (record(kind="other"), False),
    "of another persona": (record(persona="painter"), False),
    "of another persona, asked of this node": (record(persona="painter", target=OWN), False),
    "asked of another peer": (record(target=ELSEWHERE), False),
    "asked of another peer that is away, or anybody": (
        record(target=ELSEWHERE, retry=RetryPolicy(elsewhere=True)),
        True,
    ),
}


@pytest.mark.parametrize(("waiting", "may_have"), TASKS.values(), ids=TASKS)
def test_an_agent_gets_what_is_for_it(waiting: TaskRecord, may_have: bool) -> None:  # noqa: FBT001
    """By kind, persona and place, whether the task waited or has just come."""
    roster = Roster([agent(persona="writer")], OWN)
    assert (start_at_once(Backlog(OWN), waiting, roster, now=START_MS) is not None) is may_have
    roster = Roster([agent(persona="writer")], OWN)
    assert bool(plan(backlog_of(waiting), roster, now=START_MS).starts) is may_have


def test_an_agent_that_asks_gets_what_an_executor_would_get_next() -> None:
    """One task for one request: the highest priority, then the oldest."""
    low, high = record(1), record(2, priority=9)
    backlog = backlog_of(low, high)
    for expected in (high, low):
        worker = agent()
        (start,) = plan(backlog, Roster([worker], OWN), now=START_MS).starts
        assert (start.task_id, start.worker) == (expected.id, worker)
    assert plan(backlog, Roster([agent()], OWN), now=START_MS).starts == []


def test_what_waits_is_told_in_the_order_of_claiming() -> None:
    """Without what is too late, waits for its back-off, or has been claimed."""
    first, second, late = record(1, priority=7), record(2), record(3, deadline=START_MS + 10)
    delayed = record(4)
    delayed.not_before = START_MS + 50
    backlog = backlog_of(second, late, delayed, first)
    assert [one.id for one in backlog.waiting(START_MS)] == [first.id, second.id, late.id]
    assert backlog.claim(first.id, START_MS) is first
    assert [one.id for one in backlog.waiting(START_MS + 50)] == [second.id, delayed.id]


def test_a_given_task_is_claimed_once_and_counts_as_running() -> None:
    """Out of turn; never again until it waits again, and the plan does not start it either."""
    one, other = record(1, priority=9), record(2)
    backlog = backlog_of(one, other)
    assert backlog.claim(other.id, START_MS) is other
    assert backlog.claim(other.id, START_MS) is None
    assert (backlog.running, len(backlog.tasks)) == (1, 1)
    assert [start.task_id for start in plan(backlog, Roster([agent()], OWN), now=START_MS).starts] == [one.id]
    backlog.update(other)
    assert backlog.claim(other.id, START_MS) is other


def test_what_does_not_stand_in_a_queue_is_not_claimed() -> None:
    """A task that nobody knows, one whose deadline has passed, and one whose back-off is not over."""
    late, delayed = record(1, deadline=START_MS), record(2)
    delayed.not_before = START_MS + 50
    backlog = backlog_of(late, delayed)
    for task_id in (record().id, late.id, delayed.id):
        assert backlog.claim(task_id, START_MS) is None
    assert backlog.claim(delayed.id, START_MS + 50) is delayed
