"""When a lease lapses, what renews it, and who may still speak for a task: tables of pure decisions."""

from __future__ import annotations

import random

import pytest

from node.coordination.leases import CHECKS_A_LEASE, Lease, lapsed, lease_lost, refusal
from node.coordination.retries import MAX_LOST_LEASES, after_failure
from node.testing import START_MS, make_task
from protocol import (
    Claimed,
    Completed,
    ErrorCode,
    Failed,
    Failure,
    PeerId,
    Released,
    Started,
    Submitted,
    TaskRecord,
    TaskResult,
    Transition,
    advance,
    begin,
)

# covers COORD-4, COORD-6, COORD-23, COORD-24, COORD-58

LEASE_MS = 1_000
CLAIMED = START_MS
ONE, TWO = PeerId("one"), PeerId("two")

# When it was claimed, whether it was started, when its holder was seen, what time it is: when it lapses.
LEASES = {
    "a claim has one lease to be started": (Lease(CLAIMED, started=False, seen_at=CLAIMED), CLAIMED, CLAIMED + 1_000),
    "signs of life do not renew what was not started": (
        Lease(CLAIMED, started=False, seen_at=CLAIMED + 900),
        CLAIMED + 900,
        CLAIMED + 1_000,
    ),
    "nor does an agent that waits for more": (Lease(CLAIMED, False, None), CLAIMED + 900, CLAIMED + 1_000),
    "a sign of life renews what was started": (Lease(CLAIMED, True, CLAIMED + 900), CLAIMED + 950, CLAIMED + 1_900),
    "one that is older than the claim does not shorten it": (Lease(CLAIMED, True, 0), CLAIMED + 5, CLAIMED + 1_000),
    "an agent that waits for an answer is seen": (Lease(CLAIMED, True, None), CLAIMED + 9_000, CLAIMED + 10_000),
}


@pytest.mark.parametrize(("lease", "now", "lapses_at"), LEASES.values(), ids=LEASES)
def test_when_a_lease_lapses(lease: Lease, now: int, lapses_at: int) -> None:
    """Starting in time, and a sign of life in each lease from then on, keep a task."""
    assert lease.lapses_at(now, LEASE_MS) == lapses_at


def test_what_lapses_is_found_and_the_next_look_is_in_time_and_not_too_soon() -> None:
    """Of many claims those that are over, once; the next look is when another may be, at most ten times a lease."""
    at = CLAIMED + LEASE_MS
    leases = {
        "over": Lease(CLAIMED, started=False, seen_at=None),
        "soon over": Lease(CLAIMED + 1, started=False, seen_at=None),
        "renewed": Lease(CLAIMED, started=True, seen_at=CLAIMED + 700),
    }
    assert lapsed(leases.items(), now=at, lease_ms=LEASE_MS) == (["over"], at + LEASE_MS // CHECKS_A_LEASE)
    del leases["over"], leases["soon over"]
    assert lapsed(leases.items(), now=at, lease_ms=LEASE_MS) == ([], CLAIMED + 1_700)
    assert lapsed([], now=at, lease_ms=LEASE_MS) == ([], None)
    assert lapsed([("x", Lease(CLAIMED, True, None))], now=at, lease_ms=1) == ([], at + 1)


def _after(*facts: type[Transition]) -> TaskRecord:
    task = make_task()
    record = begin(Submitted(task, START_MS, ONE))
    for kind in facts:
        attempt = record.attempt
        fact: Transition
        if kind is Claimed:
            fact = Claimed(task.id, START_MS, attempt + 1, TWO if attempt else ONE, START_MS + LEASE_MS)
        elif kind is Started:
            fact = Started(task.id, START_MS, attempt)
        elif kind is Completed:
            fact = Completed(task.id, START_MS, attempt, TaskResult(task.id, "done", 1))
        else:
            fact = Released(task.id, START_MS, attempt, ErrorCode.LEASE_LOST, "lost", 0)
        record = advance(record, fact)
    return record


# What has happened, who speaks, for which attempt: the code, and words of the reason.
REFUSALS = {
    "nobody has claimed it": ((), ONE, 1, ErrorCode.ILLEGAL_TRANSITION, "was never claimed: the task is pending"),
    "nobody can have attempt 0": ((), ONE, 0, ErrorCode.ILLEGAL_TRANSITION, "was never claimed"),
    "an attempt to come": ((Claimed,), ONE, 2, ErrorCode.ILLEGAL_TRANSITION, "is claimed, at attempt 1"),
    "somebody else's": ((Claimed,), TWO, 1, ErrorCode.FORBIDDEN, "belongs to one, and not to two"),
    "it waits again": ((Claimed, Released), ONE, 1, ErrorCode.STALE_ATTEMPT, "the task waits for another attempt"),
    "claimed since": ((Claimed, Released, Claimed), ONE, 1, ErrorCode.STALE_ATTEMPT, "two has claimed attempt 2"),
    "it has ended": ((Claimed, Started, Completed), ONE, 1, ErrorCode.ILLEGAL_TRANSITION, "the task is complete"),
}


@pytest.mark.parametrize(("facts", "holder", "attempt", "code", "words"), REFUSALS.values(), ids=REFUSALS)
def test_who_does_not_hold_a_task_is_told_why(
    facts: tuple[type[Transition], ...], holder: PeerId, attempt: int, code: ErrorCode, words: str
) -> None:
    """What has happened since, in words, and what to do."""
    error = refusal(_after(*facts), holder, attempt)
    assert error.code is code
    assert words in error.message
    assert error.remedy


@pytest.mark.parametrize(
    ("facts", "words"),
    [((Claimed,), "one did not start it within 1000 ms"), ((Claimed, Started), "one gave no sign of life within")],
)
def test_a_lost_lease_says_what_was_missed(facts: tuple[type[Transition], ...], words: str) -> None:
    """Its code makes it a lost lease, which is no failure of the task."""
    error = lease_lost(_after(*facts), LEASE_MS)
    assert error.code is ErrorCode.LEASE_LOST
    assert words in error.message


@pytest.mark.parametrize(
    ("target", "holder", "ends"),
    [(None, TWO, True), (ONE, TWO, True), (ONE, ONE, False)],
    ids=["anywhere", "an agent of the node that was named", "a peer that was named"],
)
def test_a_task_that_loses_worker_after_worker_ends(target: PeerId | None, holder: PeerId, ends: bool) -> None:  # noqa: FBT001
    """It is more likely to kill them than to be unlucky; only a peer that was asked by name is waited for."""
    task = make_task()
    record = begin(Submitted(task, START_MS, ONE, target))
    failure = Failure.of(ErrorCode.LEASE_LOST, "lost")
    for attempt in range(1, MAX_LOST_LEASES + 1):
        record = advance(record, Claimed(task.id, START_MS, attempt, holder, START_MS + LEASE_MS))
        fact = after_failure(record, failure, now=START_MS, rng=random.Random(1))
        assert isinstance(fact, Failed) is (ends and attempt == MAX_LOST_LEASES)
        record = advance(record, fact)
