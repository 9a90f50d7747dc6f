"""The table of transitions, cell by cell, and what each fact does to a record."""

import itertools

import pytest

from protocol import (
    LOST_REASONS,
    REFUSED_REASONS,
    TRANSITIONS,
    UNSTARTED_REASONS,
    Cancelled,
    CancelRequested,
    Claimed,
    ErrorCode,
    IllegalTransition,
    PeerId,
    Progressed,
    Released,
    StaleAttempt,
    TaskRecord,
    TaskStatus,
    Transition,
    advance,
)
from protocol.lifecycle import _copy  # the one private name: a slot that it misses would be lost in silence
from tests.protocol.samples import (
    ALICE,
    BOB,
    FAILURE,
    FULL_RESULT,
    FULL_TASK,
    NOON,
    TASK_ID,
    TRANSITIONS_BY_NAME,
    pending,
)

# The law in words, written down a second time on purpose: the code's table must say the same.
LAW = """
            | Claimed | Started   | Progressed | Completed | Failed | Released | CancelRequested | Cancelled
pending     | claimed |           |            |           | failed |          |                 | cancelled
claimed     |         | executing |            |           | failed | pending  | cancelling      |
executing   |         |           | executing  | complete  | failed | pending  | cancelling      |
cancelling  |         |           | cancelling | complete  | failed |          |                 | cancelled
complete    |         |           |            |           |        |          |                 |
failed      |         |           |            |           |        |          |                 |
cancelled   |         |           |            |           |        |          |                 |
"""

# How to bring a new record to each status, and whether its attempt 1 has been claimed by then.
PATHS: dict[TaskStatus, tuple[str, ...]] = {
    TaskStatus.PENDING: ("Claimed", "Released"),
    TaskStatus.CLAIMED: ("Claimed",),
    TaskStatus.EXECUTING: ("Claimed", "Started"),
    TaskStatus.CANCELLING: ("Claimed", "Started", "CancelRequested"),
    TaskStatus.COMPLETE: ("Claimed", "Started", "Completed"),
    TaskStatus.FAILED: ("Claimed", "Failed"),
    TaskStatus.CANCELLED: ("Claimed", "CancelRequested", "Cancelled"),
}


def record_in(status: TaskStatus) -> TaskRecord:
    """Return a record of the given status whose attempt 1 was claimed."""
    record = pending()
    for name in PATHS[status]:
        record = advance(record, TRANSITIONS_BY_NAME[name])
    assert record.status is status
    return record


def fact_for(record: TaskRecord, name: str, *, attempts_off: int = 0) -> Transition:
    """Return a fact of the attempt that the record expects, or of one so many attempts later."""
    fact = TRANSITIONS_BY_NAME[name]
    if isinstance(fact, CancelRequested | Cancelled):
        return fact
    return fact._replace(attempt=record.attempt + (name == "Claimed") + attempts_off)


def law() -> dict[tuple[str, str], str]:
    """Return the cells of the law that are not empty."""
    head, *rows = [[cell.strip() for cell in line.split("|")] for line in LAW.strip("\n").splitlines()]
    return {(row[0], name): cell for row in rows for name, cell in zip(head[1:], row[1:], strict=True) if cell}


CELLS = list(itertools.product(TaskStatus, TRANSITIONS_BY_NAME))
WITH_ATTEMPT = [name for name, fact in TRANSITIONS_BY_NAME.items() if hasattr(fact, "attempt")]


def test_the_table_has_a_row_for_every_status_and_terminal_rows_are_empty() -> None:
    """The table is total: whatever the status of a record, there is a row that judges the fact."""
    assert set(TRANSITIONS) == set(TaskStatus)
    assert {status for status, row in TRANSITIONS.items() if not row} == {s for s in TaskStatus if s.terminal}


def test_the_table_is_the_law() -> None:
    """No cell of the code's table differs from the law."""  # covers CORE-9, CORE-15
    assert law() == {
        (status.value, fact.__name__): after.value for status, row in TRANSITIONS.items() for fact, after in row.items()
    }


@pytest.mark.parametrize(("status", "name"), CELLS)
def test_advance_follows_the_law_in_every_cell(status: TaskStatus, name: str) -> None:
    """A fact that the law allows leads to the status in its cell, and any other is refused."""  # covers CORE-15
    record = record_in(status)
    fact = fact_for(record, name)
    expected = law().get((status.value, name))
    if expected is None:
        with pytest.raises(IllegalTransition, match=f"is {status}, which does not allow {name}"):
            advance(record, fact)
    else:
        after = advance(record, fact)
        assert (after.status, after.seq, after.updated_at) == (expected, record.seq + 1, fact.at)


@pytest.mark.parametrize(("status", "name"), CELLS)
def test_advance_never_changes_the_record_it_is_given(status: TaskStatus, name: str) -> None:
    """Whoever holds a record holds a moment of the task, also when the fact is refused."""
    record = record_in(status)
    before = record.to_dict()
    try:
        after = advance(record, fact_for(record, name))
    except IllegalTransition:
        pass
    else:
        assert after is not record
    assert record.to_dict() == before


@pytest.mark.parametrize("status", TaskStatus)
@pytest.mark.parametrize("name", WITH_ATTEMPT)
def test_a_fact_of_an_older_attempt_is_stale_whatever_the_status(status: TaskStatus, name: str) -> None:
    """A worker that was presumed dead and wakes up cannot overwrite what has happened since."""
    record = record_in(status)
    with pytest.raises(StaleAttempt, match=f"{name} belongs to attempt 0|{name} belongs to attempt 1"):
        advance(record, fact_for(record, name, attempts_off=-1))


@pytest.mark.parametrize("status", TaskStatus)
@pytest.mark.parametrize("name", WITH_ATTEMPT)
def test_a_fact_of_an_attempt_that_nobody_claimed_is_illegal(status: TaskStatus, name: str) -> None:
    """Attempts grow by one with each claim, so a gap is a defect and not news."""
    with pytest.raises(IllegalTransition, match="belongs to attempt"):
        advance(record_in(status), fact_for(record_in(status), name, attempts_off=1))


def test_a_claim_starts_the_attempt_afresh() -> None:
    """A new attempt knows its holder and its lease, and nothing of the progress of the last."""
    record = record_in(TaskStatus.EXECUTING)
    record = advance(record, Progressed(TASK_ID, NOON + 3, 1, 0.5, "half", NOON + 40_000))
    record = advance(record, Released(TASK_ID, NOON + 4, 1, ErrorCode.PEER_LOST, "gone", NOON + 9_000))
    assert (record.lease_until, record.not_before, record.holder) == (0, NOON + 9_000, BOB)
    record = advance(record, Claimed(TASK_ID, NOON + 9_000, 2, ALICE, NOON + 39_000))
    assert (record.attempt, record.holder, record.lease_until) == (2, ALICE, NOON + 39_000)
    assert (record.not_before, record.progress, record.progress_message) == (0, 0.0, "")


def test_progress_renews_the_lease_and_never_goes_back() -> None:
    """The fraction only grows, because reports may overtake each other between a peer and its executor."""
    record = record_in(TaskStatus.EXECUTING)
    record = advance(record, Progressed(TASK_ID, NOON + 3, 1, 0.5, "half", NOON + 40_000))
    record = advance(record, Progressed(TASK_ID, NOON + 4, 1, 0.2, "again", NOON + 50_000))
    assert (record.progress, record.progress_message, record.lease_until) == (0.5, "again", NOON + 50_000)


def test_a_completed_record_holds_the_result_and_no_lease() -> None:
    """What is complete is done to the full, and nobody holds it."""
    record = record_in(TaskStatus.COMPLETE)
    assert (record.result, record.failure, record.progress, record.lease_until) == (FULL_RESULT, None, 1.0, 0)


def test_a_failed_record_holds_the_failure_and_no_lease() -> None:
    """The failure is the one that the fact told."""
    record = record_in(TaskStatus.FAILED)
    assert (record.result, record.failure, record.lease_until) == (None, FAILURE, 0)


def test_a_cancelled_record_says_so_as_a_failure() -> None:
    """Whoever waits for the result gets an error with the code CANCELLED."""
    record = record_in(TaskStatus.CANCELLED)
    assert record.failure is not None
    assert (record.failure.code, record.lease_until) == (ErrorCode.CANCELLED, 0)


@pytest.mark.parametrize(("reason", "target"), list(itertools.product(ErrorCode, [BOB, None])))
def test_a_release_counts_as_a_failure_or_as_a_lost_lease_or_as_nothing(
    reason: ErrorCode, target: PeerId | None
) -> None:
    """A dying machine must not burn the retries, and what was never tried counts as nothing.

    Nor does a refusal, where another peer may have the task.
    """
    record = record_in(TaskStatus.EXECUTING)
    record.target = target
    after = advance(record, Released(TASK_ID, NOON + 4, 1, reason, "why", NOON + 5_000))
    lost = reason in {ErrorCode.LEASE_LOST, ErrorCode.PEER_LOST}
    untried = reason in {ErrorCode.BUSY, ErrorCode.DRAINING, ErrorCode.PEER_UNREACHABLE}
    refused = target is None and reason in {ErrorCode.FORBIDDEN, ErrorCode.NO_EXECUTOR, ErrorCode.TOO_LARGE}
    assert (after.lost_leases, after.failures) == (int(lost), int(not (lost or untried or refused)))


def test_the_reasons_of_a_release_do_not_overlap() -> None:
    """No reason is two of a lost lease, an attempt that never began, and a refusal."""
    assert not LOST_REASONS & UNSTARTED_REASONS
    assert not (LOST_REASONS | UNSTARTED_REASONS) & REFUSED_REASONS


def test_a_new_record_is_pending_and_has_seen_one_fact() -> None:
    """The first record says what was asked, by whom, of whom and until when, and nothing else."""
    record = pending()
    assert (record.status, record.seq, record.attempt) == (TaskStatus.PENDING, 1, 0)
    assert (record.task, record.requester, record.target, record.deadline) == (FULL_TASK, ALICE, BOB, NOON + 60_000)
    assert (record.created_at, record.updated_at) == (NOON, NOON)


def test_the_copy_of_a_record_has_every_slot() -> None:
    """The copy is spelled out for speed; a slot that is added and not copied fails here."""
    record = TaskRecord.__new__(TaskRecord)
    marks = {name: object() for name in TaskRecord.__slots__}
    for name, mark in marks.items():
        setattr(record, name, mark)
    copied = _copy(record)
    assert {name: getattr(copied, name) for name in TaskRecord.__slots__} == marks
