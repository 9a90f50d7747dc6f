"""What is recorded of a task that is put back from a file."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from node.coordination.restoring import restored_history
from node.testing import TEST_PEER, make_task
from protocol import (
    Cancelled,
    CancelRequested,
    Claimed,
    Completed,
    ErrorCode,
    Fact,
    Failed,
    Failure,
    PeerId,
    Progressed,
    Released,
    Started,
    Submitted,
    TaskRecord,
    TaskResult,
    advance,
    begin,
)

OWN, NOW = PeerId("own"), 1_000
TASK = make_task()
SUBMITTED = Submitted(TASK, 1, TEST_PEER, OWN, 99_000)
CLAIMED, STARTED = Claimed(TASK.id, 2, 1, OWN, 30_000), Started(TASK.id, 3, 1)

LIVES: dict[str, list[Fact]] = {
    "pending": [SUBMITTED],
    "claimed": [SUBMITTED, CLAIMED],
    "executing": [SUBMITTED, CLAIMED, STARTED, Progressed(TASK.id, 4, 1, 0.5, "half", 40_000)],
    "cancelling": [SUBMITTED, CLAIMED, STARTED, CancelRequested(TASK.id, 4)],
    "released": [SUBMITTED, CLAIMED, Released(TASK.id, 4, 1, ErrorCode.EXECUTION_FAILED, "no", 9)],
    "complete": [SUBMITTED, CLAIMED, STARTED, Completed(TASK.id, 4, 1, TaskResult(TASK.id, "done", 1))],
    "failed": [SUBMITTED, CLAIMED, Failed(TASK.id, 4, 1, Failure.of(ErrorCode.TIMEOUT, "late"))],
    "cancelled": [SUBMITTED, Cancelled(TASK.id, 4)],
}


def told(facts: Iterable[Fact]) -> TaskRecord:
    """The record after some facts; raises when the table of transitions does not allow them."""
    record: TaskRecord | None = None
    for fact in facts:
        if isinstance(fact, Submitted):
            record = begin(fact)
        elif record is not None:
            record = advance(record, fact)
    assert record is not None
    return record


@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES)
def test_with_all_facts_the_same_history_is_told(life: list[Fact]) -> None:
    """Nothing is lost, and what was under way is released or cancelled, because nobody is doing it any more."""
    # covers FILE-2
    record = told(life)
    history = restored_history(record, life, OWN, NOW)
    assert history[: len(life)] == life
    after = told(history)
    if record.status.value in {"claimed", "executing", "cancelling"}:
        assert len(history) == len(life) + 1
        assert after.status.value == ("cancelled" if record.status.value == "cancelling" else "pending")
        assert after.updated_at == NOW
    else:
        assert after == record


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES)
def test_without_some_facts_the_outcome_is_the_same(life: list[Fact], kept: int) -> None:
    """A task that had ended has its result or failure again, another one is pending; times and requester stay."""
    # covers FILE-2
    record = told(life)
    facts = life[len(life) - kept :] if len(life) > 1 else []
    after = told(restored_history(record, facts, OWN, NOW))
    assert after.status == (record.status if record.terminal else "pending")
    assert after.result == record.result
    assert (after.failure and after.failure.code) == (record.failure and record.failure.code)
    assert (after.task, after.requester, after.target) == (record.task, record.requester, record.target)
    assert (after.created_at, after.deadline) == (record.created_at, record.deadline)
    assert after.updated_at == (record.updated_at if record.terminal else record.created_at)
