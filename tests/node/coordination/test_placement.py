"""Who gets a task that any of several may have, and who is not asked for it again."""

from __future__ import annotations

import random
from collections import Counter, deque
from typing import Any

import pytest

from node.coordination.placement import (
    MAX_CAPACITY,
    MAX_DIFFERENT_REFUSALS,
    Refusals,
    choose,
    share_in_use,
)
from node.coordination.plan import Backlog, plan
from node.coordination.roster import MAX_ANSWERS_KEPT, Place, Roster, Worker
from node.testing import START_MS, make_task
from protocol import (
    REFUSED_REASONS,
    Claimed,
    ErrorCode,
    PeerId,
    Released,
    Submitted,
    TaskId,
    TaskRecord,
    advance,
    begin,
    new_task_id,
)

OWN, PEER, OTHER = PeerId("own"), PeerId("peer"), PeerId("other")
ECHO = frozenset({"echo"})
SEEDS = range(5)


def peers(number: int, slots: int = 256, capacity: int = 8) -> list[Worker]:
    """Equal peers."""
    return [Worker(PeerId(f"peer {index}"), ECHO, slots, capacity=capacity) for index in range(number)]


def chosen(*workers: Worker, now: int = START_MS) -> PeerId | None:
    """Who gets a task; of two workers both are compared, so no chance is in it."""
    worker = choose(workers, OWN, random.Random(1), now)
    return None if worker is None else worker.peer_id


# --- one of two ------------------------------------------------------------------------------------------------------


def worker(peer_id: PeerId = PEER, slots: int = 10, **told: Any) -> Worker:
    """A worker that can do what is asked."""
    return Worker(peer_id, ECHO, slots, **told)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (worker(busy=5), worker(OTHER, busy=4), OTHER),
        (worker(busy=5), worker(OTHER, slots=1, busy=0), OTHER),
        (worker(busy=5), worker(OTHER, slots=4, busy=4), PEER),
        (worker(busy=2, capacity=4), worker(OTHER, busy=4, capacity=16), OTHER),
        (worker(load=5), worker(OTHER, load=4), OTHER),
        (worker(busy=4, load=4, own_load=4), worker(OTHER, load=5), PEER),
        (worker(busy=1), worker(OWN, busy=1), OWN),
        (worker(), worker(OTHER, latency_ms=50), PEER),
        (worker(latency_ms=49), worker(OWN), OWN),
        (worker(busy=1), worker(OTHER, latency_ms=50), OTHER),
        (worker(busy_until=START_MS + 1), worker(OTHER, busy=9), OTHER),
        (worker(busy_until=START_MS + 1), worker(OTHER, busy=10), None),
        (worker(busy_until=START_MS), worker(OTHER, busy=1), PEER),
        (worker(turn=2), worker(OTHER, turn=1), OTHER),
        (worker(turn=1), worker(OWN, turn=2), OWN),
        (worker(slots=0), worker(OTHER, slots=0), None),
    ],
)
def test_the_one_with_the_smaller_share_in_use_gets_the_task(one: Worker, other: Worker, expected: PeerId) -> None:
    """Then the nearer one, then this node; whoever has just said that it is busy is left alone."""
    assert chosen(one, other) == chosen(other, one) == expected


def test_nobody_is_chosen_of_none() -> None:
    """A kind that nobody has."""
    assert chosen() is None


def test_a_free_worker_is_found_among_many_that_are_full() -> None:
    """Two that are drawn may both be full: the draw is made again among those with room."""
    full = peers(50, slots=0)
    assert {chosen(*full, worker()) for _ in range(20)} == {PEER}


# --- many ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_equal_tasks_spread_evenly_over_equal_workers(seed: int) -> None:
    """1,000 tasks over 8 workers, all open: the busiest has 15 % more than the mean at the most."""
    rng, workers = random.Random(seed), peers(8)
    for _ in range(1_000):
        given = choose(workers, OWN, rng, START_MS)
        assert given is not None
        given.busy += 1
    assert max(worker.busy for worker in workers) <= 1.15 * 1_000 / 8


@pytest.mark.parametrize("seed", SEEDS)
def test_tasks_that_end_in_turn_spread_evenly_too(seed: int) -> None:
    """With 64 open at a time, what each has done in the end is as even."""
    rng, workers = random.Random(seed), peers(8)
    open_tasks: deque[Worker] = deque()
    done: Counter[PeerId] = Counter()
    for _ in range(1_000):
        if len(open_tasks) == 64:
            ended = open_tasks.popleft()
            ended.busy -= 1
        given = choose(workers, OWN, rng, START_MS)
        assert given is not None
        given.busy += 1
        done[given.peer_id] += 1
        open_tasks.append(given)
    assert max(done.values()) <= 1.15 * 1_000 / 8


@pytest.mark.parametrize("seed", SEEDS)
def test_tasks_that_come_one_by_one_spread_evenly_too(seed: int) -> None:
    """Where everybody is idle whenever a task comes, whoever was chosen longer ago gets it."""
    backlog, workers = Backlog(OWN, random.Random(seed)), peers(8)
    done = Counter(chosen.peer_id for _ in range(1_000) if (chosen := backlog.choose(workers, START_MS)))
    assert max(done.values()) <= 1.15 * 1_000 / 8


@pytest.mark.parametrize("lie", [0, 10**15], ids=["says that it is always idle", "says that it is buried"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_peer_that_lies_about_its_load_does_not_attract_everything(seed: int, lie: int) -> None:
    """One of eight never ends a task and claims any load: what it was given counts, so the others get the rest."""
    rng = random.Random(seed)
    liar, *honest = peers(8)
    liar.load, liar.capacity = lie, 1_000_000
    for number in range(1_000):
        given = choose([liar, *honest], OWN, rng, START_MS)
        assert given is not None
        given.busy += 1
        if given is not liar and number % 2:
            given.busy -= 1
    assert liar.busy <= 2 * 1_000 / 8 * 1.15
    assert share_in_use(liar) > 0


def test_nobody_is_taken_at_its_word_for_a_huge_capacity() -> None:
    """A capacity of a million is worth no more than the largest that is believed."""
    boaster = worker(busy=MAX_CAPACITY, capacity=1_000_000)
    assert share_in_use(boaster) == 1


# --- who may have a task ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "wanted", "fits"),
    [
        (frozenset({"reviewer"}), "reviewer", True),
        (frozenset({"reviewer"}), "writer", False),
        (frozenset(), "reviewer", False),
        (None, "reviewer", True),
        (frozenset(), None, True),
    ],
)
def test_a_task_with_a_persona_goes_to_a_worker_that_declares_it(
    declared: frozenset[str] | None, wanted: str | None, *, fits: bool
) -> None:
    """This node does what it is given when it does not coordinate."""
    # covers COORD-2
    roster = Roster([Worker(PEER, ECHO, 1, personas=declared)], OWN)
    assert bool(roster.able(Place(None, "echo", elsewhere=False, persona=wanted))) is fits


def test_what_the_roster_remembers_is_bounded() -> None:
    """A node that is asked for no end of kinds keeps the answers for some of them."""
    roster = Roster([worker()], OWN)
    for number in range(2 * MAX_ANSWERS_KEPT):
        roster.able(Place(None, f"kind {number}", elsewhere=False))
    assert len(roster._able) <= MAX_ANSWERS_KEPT  # noqa: SLF001 - what it holds is not to be seen otherwise


# --- who refused -----------------------------------------------------------------------------------------------------


def waiting(**fields: Any) -> TaskRecord:
    """A task that any may have."""
    return begin(Submitted(make_task(kind="echo", **fields), START_MS, OWN))


def refused(record: TaskRecord, by: PeerId, reason: ErrorCode, backlog: Backlog) -> TaskRecord:
    """Let a peer give a task back, and tell the backlog."""
    claimed = advance(record, Claimed(record.id, START_MS, record.attempt + 1, by, START_MS + 1))
    after = advance(claimed, Released(record.id, START_MS, claimed.attempt, reason, "no", 0))
    backlog.refusals.note(after.id, by, reason)
    backlog.update(after)
    return after


@pytest.mark.parametrize("reason", sorted(REFUSED_REASONS))
def test_a_peer_that_refused_a_task_is_not_asked_again_while_another_is_left(reason: ErrorCode) -> None:
    """Full or not: the other gets the task when it has room, and the one that refused gets the tasks of others."""
    backlog, refuser, full = Backlog(OWN), worker(), worker(OTHER, slots=1, busy=1)
    task = refused(waiting(), PEER, reason, backlog)
    roster = Roster([refuser, full], OWN)
    assert plan(backlog, roster, now=START_MS).starts == []
    another = waiting()
    backlog.update(another)
    assert plan(backlog, roster, now=START_MS).starts == [(another.id, refuser)]
    full.busy = 0
    assert plan(backlog, roster, now=START_MS).starts == [(task.id, full)]


def test_a_peer_that_was_busy_is_asked_again_when_its_time_is_over_and_the_others_are_full() -> None:
    """Not before, and the plan wakes up for it; alone it is asked at once, by whoever has not been told to wait."""
    backlog, busy, full = Backlog(OWN), worker(busy_until=START_MS + 50), worker(OTHER, slots=1, busy=1)
    task = waiting()
    backlog.update(task)
    roster = Roster([busy, full], OWN)
    decision = plan(backlog, roster, now=START_MS)
    assert (decision.starts, decision.wake_at) == ([], START_MS + 50)
    assert plan(backlog, roster, now=START_MS + 50).starts == [(task.id, busy)]
    backlog.update(another := waiting())
    busy.busy_until = START_MS + 100
    assert plan(backlog, Roster([busy], OWN), now=START_MS + 50) == ([(another.id, busy)], [], None)


def test_a_peer_that_takes_nothing_is_nobody_to_wait_for() -> None:
    """The one that refused the task is asked again, because nobody else is left."""
    backlog = Backlog(OWN)
    task = refused(waiting(), PEER, ErrorCode.FORBIDDEN, backlog)
    starts = plan(backlog, Roster([worker(), worker(OTHER, slots=0)], OWN), now=START_MS).starts
    assert [start.task_id for start in starts] == [task.id]


def test_a_peer_that_refused_a_task_is_asked_again_when_nobody_else_is_left() -> None:
    """The other one is gone."""
    backlog = Backlog(OWN)
    task = refused(waiting(), PEER, ErrorCode.FORBIDDEN, backlog)
    assert [start.task_id for start in plan(backlog, Roster([worker()], OWN), now=START_MS).starts] == [task.id]


@pytest.mark.parametrize("reason", sorted(set(ErrorCode) - REFUSED_REASONS))
def test_other_ends_of_an_attempt_are_no_refusals(reason: ErrorCode) -> None:
    """A peer that was lost may have the result when it is back, and one that was busy may have room."""
    refusals = Refusals()
    refusals.note(new_task_id(), PEER, reason)
    assert not refusals


def test_a_task_that_has_ended_is_forgotten() -> None:
    """Nothing is kept of who refused it."""
    refusals, task_id = Refusals(), new_task_id()
    refusals.note(task_id, PEER, ErrorCode.FORBIDDEN)
    refusals.note(task_id, OTHER, ErrorCode.TOO_LARGE)
    assert refusals.by(task_id) == {PEER, OTHER}
    refusals.forget(task_id)
    assert not refusals
    assert refusals.by(task_id) == frozenset()


def test_tasks_that_many_peers_refused_in_many_orders_wait_in_a_bounded_number_of_queues() -> None:
    """A plan looks at every queue: beyond so many, a task remembers the last refusal only."""
    refusals, rng = Refusals(), random.Random(3)
    tasks: list[TaskId] = [new_task_id() for _ in range(500)]
    names = [PeerId(f"peer {number}") for number in range(100)]
    for _ in range(5):
        for task_id in tasks:
            refusals.note(task_id, rng.choice(names), ErrorCode.NO_EXECUTOR)
    assert len({refusals.by(task_id) for task_id in tasks}) <= MAX_DIFFERENT_REFUSALS + len(names)
    assert all(refusals.by(task_id) for task_id in tasks)


def test_tasks_whose_rivals_want_the_same_busy_workers_wait() -> None:
    """Workers that asked for nothing more have slots, but get none of them, and no task is lost for that."""
    until = START_MS + 50
    workers = [worker(busy_until=until), worker(OTHER, busy_until=until)]
    rivals = [waiting(), waiting(persona="reviewer")]
    backlog, roster = Backlog(OWN), Roster(workers, OWN)
    for record in rivals:
        backlog.update(record)
    decision = plan(backlog, roster, now=START_MS)
    assert (decision.starts, decision.wake_at) == ([], until)
    assert {start.task_id for start in plan(backlog, roster, now=until).starts} == {record.id for record in rivals}
