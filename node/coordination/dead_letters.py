"""Tasks that ended without a result, and what it means to have one done again.

A task that has ended stays as it is. Having it done again is a new task that names it in its metadata, so both can be
told apart, and found from each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from protocol import ErrorCode, PeerId, PeertaskError, Task, TaskId, TaskRecord, TaskStatus

RETRY_OF: Final = "retry_of"
"""The key of the metadata under which a task names the one that it repeats."""


class Retry(NamedTuple):
    """What to submit to have a task done again.

    Attributes:
        task: a new task that names the old one.
        target: who shall do it; None when the node may choose.
        deadline: when the requester stops caring, in milliseconds since the epoch.
    """

    task: Task
    target: PeerId | None
    deadline: int | None


def retry_of(task: Task) -> TaskId | None:
    """Return the task that this one repeats."""
    named = task.metadata.get(RETRY_OF) if task.metadata else None
    return TaskId(named) if isinstance(named, str) else None


def unretried(records: Iterable[TaskRecord]) -> Iterator[TaskRecord]:
    """Yield the records whose tasks their requester has not had done again.

    Args:
        records: the newest first; so a retry comes before the task that it repeats.
    """
    repeated: set[tuple[PeerId, TaskId]] = set()
    for record in records:
        first = retry_of(record.task)
        if first is not None:
            repeated.add((record.requester, first))
        if (record.requester, record.id) not in repeated:
            yield record


def retries_among(records: Iterable[TaskRecord]) -> dict[TaskId, TaskId]:
    """Return which tasks have been retried, each with the task that repeats it; all are of one requester."""
    named = ((retry_of(record.task), record.id) for record in records)
    return {first: again for first, again in named if first is not None}


def _last(task_id: TaskId, retried: Mapping[TaskId, TaskId]) -> TaskId:
    """Return the last one that repeats a task: what depended on the task depends on that when it is repeated itself."""
    while (repetition := retried.get(task_id)) is not None:
        task_id = repetition
    return task_id


def again(record: TaskRecord, retried: Mapping[TaskId, TaskId], *, own_id: PeerId, new_id: TaskId, now: int) -> Retry:
    """Return what to submit to have a task done again, with as much time as it was given at first.

    Args:
        record: the task as it stands.
        retried: which tasks have been retried, as `retries_among` tells.
        own_id: this node.
        new_id: the id of the new task.
        now: milliseconds since the epoch.

    Raises:
        PeertaskError: code FORBIDDEN when another peer asked for the task, ILLEGAL_TRANSITION when it has not ended or
            has a result, CONFLICT when it has been retried already.
    """
    if record.requester != own_id:
        raise PeertaskError(
            f"peer {record.requester} asked for task {record.id}, and only it can have it done again",
            code=ErrorCode.FORBIDDEN,
            remedy="Run `peertask retry` at that node",
        )
    if record.status not in {TaskStatus.FAILED, TaskStatus.CANCELLED}:
        raise PeertaskError(
            f"task {record.id} is {record.status.value}; only one that failed or was cancelled can be retried",
            code=ErrorCode.ILLEGAL_TRANSITION,
            remedy="Submit a new task to have it done once more"
            if record.terminal
            else "Wait for its end, or cancel it",
        )
    if record.id in retried:
        raise PeertaskError(
            f"task {record.id} has been retried already, as {retried[record.id]}",
            code=ErrorCode.CONFLICT,
            remedy=f"See `peertask show {retried[record.id]}`, and retry that one",
        )
    task = replace(
        record.task,
        id=new_id,
        sender=own_id,
        timestamp=now,
        depends_on=tuple(_last(dependency, retried) for dependency in record.task.depends_on),
        metadata={**record.task.metadata, RETRY_OF: record.id},
    )
    deadline = None if record.deadline is None else now + record.deadline - record.created_at
    return Retry(task, record.target, deadline)
