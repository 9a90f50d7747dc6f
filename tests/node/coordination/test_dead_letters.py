"""What was had done again, what was not, and what it takes."""

# covers COORD-29

from __future__ import annotations

from typing import Any

import pytest

from node.coordination.dead_letters import RETRY_OF, Retry, again, retries_among, retry_of, unretried
from node.testing import START_MS, make_task
from protocol import (
    Cancelled,
    Claimed,
    Completed,
    ErrorCode,
    Failed,
    Failure,
    PeerId,
    PeertaskError,
    Started,
    Submitted,
    TaskId,
    TaskRecord,
    TaskResult,
    advance,
    begin,
    new_task_id,
)

OWN, PEER = PeerId("own"), PeerId("peer")
NOW = START_MS + 60_000


def pending(requester: PeerId = OWN, *, deadline: int | None = None, **fields: Any) -> TaskRecord:
    """A task that waits."""
    return begin(Submitted(make_task(sender=requester, **fields), START_MS, requester, PEER, deadline))


def failed(requester: PeerId = OWN, **fields: Any) -> TaskRecord:
    """A task that failed."""
    record = pending(requester, **fields)
    return advance(record, Failed(record.id, START_MS, 0, Failure.of(ErrorCode.TIMEOUT, "too slow")))


def repeating(record: TaskRecord, requester: PeerId = OWN) -> TaskRecord:
    """A task that repeats another."""
    return failed(requester, metadata={RETRY_OF: record.id})


def complete() -> TaskRecord:
    """A task with a result."""
    record = pending()
    for fact in (
        Claimed(record.id, START_MS, 1, PEER, 0),
        Started(record.id, START_MS, 1),
        Completed(record.id, START_MS, 1, TaskResult(record.id, "done", 1)),
    ):
        record = advance(record, fact)
    return record


def try_again(record: TaskRecord, retried: dict[TaskId, TaskId] | None = None) -> Retry:
    """Ask for a task to be done again."""
    return again(record, retried or {}, own_id=OWN, new_id=new_task_id(), now=NOW)


def test_a_retry_is_the_same_task_under_a_new_id_that_names_the_first() -> None:
    """With as much time as the first one had; what else its metadata say stays."""
    first = failed(deadline=START_MS + 5_000, kind="echo", persona="reviewer", priority=9, metadata={"title": "t"})
    new_id = new_task_id()
    task, target, deadline = again(first, {}, own_id=OWN, new_id=new_id, now=NOW)
    assert (task.id, task.timestamp, task.sender) == (new_id, NOW, OWN)
    assert (task.prompt, task.kind, task.persona, task.priority) == (first.task.prompt, "echo", "reviewer", 9)
    assert task.metadata == {"title": "t", RETRY_OF: first.id}
    assert (target, deadline) == (PEER, NOW + 5_000)
    assert retry_of(task) == first.id


def test_a_task_that_was_cancelled_can_be_done_again_and_one_without_a_deadline_gets_none() -> None:
    """Whoever changed their mind may change it back."""
    record = pending()
    assert try_again(advance(record, Cancelled(record.id, START_MS))).deadline is None


@pytest.mark.parametrize(
    ("record", "code", "reason"),
    [
        (failed(PEER), ErrorCode.FORBIDDEN, "peer peer asked for task .* Run `peertask retry` at that node"),
        (pending(), ErrorCode.ILLEGAL_TRANSITION, "is pending; .* Wait for its end, or cancel it"),
        (complete(), ErrorCode.ILLEGAL_TRANSITION, "is complete; .* Submit a new task"),
    ],
)
def test_what_cannot_be_retried_is_refused_in_words(record: TaskRecord, code: ErrorCode, reason: str) -> None:
    """Another's task, one that may still complete, and one that has."""
    with pytest.raises(PeertaskError, match=reason) as caught:
        try_again(record)
    assert caught.value.code is code


def test_a_task_is_retried_once_and_then_its_retry_can_be() -> None:
    """A request that is repeated does not have the task done twice, and says what it became."""
    first = failed()
    second = repeating(first)
    retried = retries_among([second, first])
    assert retried == {first.id: second.id}
    with pytest.raises(PeertaskError, match=f"retried already, as {second.id}") as caught:
        try_again(first, retried)
    assert caught.value.code is ErrorCode.CONFLICT
    assert try_again(second, retried).task.metadata[RETRY_OF] == second.id


def test_what_was_retried_is_left_out_of_the_dead_letters() -> None:
    """Of a chain of retries the last one is left; what another peer says that it repeats counts for its own tasks."""
    first, other = failed(), failed()
    second = repeating(first)
    third = repeating(second)
    claimed_by_peer = repeating(other, PEER)
    assert list(unretried([claimed_by_peer, third, second, other, first])) == [claimed_by_peer, third, other]


@pytest.mark.parametrize("metadata", [{}, {RETRY_OF: 7}, {RETRY_OF: None}, {"other": "x"}])
def test_metadata_that_name_no_task_repeat_none(metadata: dict[str, object]) -> None:
    """The metadata are the requester's: whatever they hold is no error here."""
    assert retry_of(make_task(metadata=metadata)) is None
