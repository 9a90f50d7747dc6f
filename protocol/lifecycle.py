"""The life of a task. Everything about transitions stands in this file, and nothing else makes a record.

`TRANSITIONS` is total: every status has a row, and what is not in the row is an `IllegalTransition`; terminal rows are
empty. `advance` judges a fact by the table and by the attempt that it belongs to, and returns the next record; it never
changes the one it was given, so whoever holds a record holds a moment of the task.

The attempt is a fencing token: a claim makes the next one, and a fact of an older one is refused as `StaleAttempt`, so
a worker that was presumed dead and wakes up cannot overwrite what has happened since.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from protocol.errors import ErrorCode, IllegalTransition, StaleAttempt
from protocol.facts import (
    Cancelled,
    CancelRequested,
    Claimed,
    Completed,
    Failed,
    Progressed,
    Released,
    Started,
    Submitted,
    Transition,
)
from protocol.record import TaskRecord, TaskStatus
from protocol.result import Failure

_PENDING, _CLAIMED, _EXECUTING, _CANCELLING = (
    TaskStatus.PENDING,
    TaskStatus.CLAIMED,
    TaskStatus.EXECUTING,
    TaskStatus.CANCELLING,
)
_COMPLETE, _FAILED, _CANCELLED = TaskStatus.COMPLETE, TaskStatus.FAILED, TaskStatus.CANCELLED

TRANSITIONS: dict[TaskStatus, dict[type[Transition], TaskStatus]] = {
    _PENDING: {Claimed: _CLAIMED, Failed: _FAILED, Cancelled: _CANCELLED},
    _CLAIMED: {Started: _EXECUTING, Failed: _FAILED, Released: _PENDING, CancelRequested: _CANCELLING},
    _EXECUTING: {
        Progressed: _EXECUTING,
        Completed: _COMPLETE,
        Failed: _FAILED,
        Released: _PENDING,
        CancelRequested: _CANCELLING,
    },
    _CANCELLING: {Progressed: _CANCELLING, Completed: _COMPLETE, Failed: _FAILED, Cancelled: _CANCELLED},
    _COMPLETE: {},
    _FAILED: {},
    _CANCELLED: {},
}

LOST_REASONS = frozenset({ErrorCode.LEASE_LOST, ErrorCode.PEER_LOST})
"""A dying machine must not burn the retries: these count as lost leases."""

UNSTARTED_REASONS = frozenset({ErrorCode.BUSY, ErrorCode.DRAINING, ErrorCode.PEER_UNREACHABLE})
"""Nothing was tried: these count as nothing."""

REFUSED_REASONS = frozenset({ErrorCode.FORBIDDEN, ErrorCode.NO_EXECUTOR, ErrorCode.TOO_LARGE})
"""A peer would not have the task: these count as nothing for a task that names nobody, because another peer may."""

_NO_FAILURES = LOST_REASONS | UNSTARTED_REASONS
_NO_FAILURES_OF_ANYBODY = _NO_FAILURES | REFUSED_REASONS

# Whoever wants a task stopped does not care which attempt it stops.
_UNFENCED = frozenset({CancelRequested, Cancelled})


def begin(fact: Submitted) -> TaskRecord:
    """Return the first record of a task: pending, with `seq` 1."""
    return TaskRecord(fact.task, fact.requester, fact.target, fact.deadline, fact.at)


def advance(record: TaskRecord, fact: Transition) -> TaskRecord:
    """Return the record after a fact; the given one is unchanged.

    Raises:
        IllegalTransition: the status of the record does not allow the fact, or its attempt was never claimed.
        StaleAttempt: a newer attempt has been claimed since.
    """
    kind = type(fact)
    status = TRANSITIONS[record.status].get(kind)
    if kind not in _UNFENCED and fact.attempt != record.attempt + (kind is Claimed):  # type: ignore[union-attr]
        raise _wrong_attempt(record, fact)
    if status is None:
        raise IllegalTransition(f"task {record.id} is {record.status}, which does not allow {kind.__name__}")
    after = _copy(record)
    after.status = status
    after.terminal = not TRANSITIONS[status]
    after.seq += 1
    after.updated_at = fact.at
    _EFFECTS[kind](after, fact)
    return after


def _wrong_attempt(record: TaskRecord, fact: Any) -> IllegalTransition | StaleAttempt:
    expected = record.attempt + isinstance(fact, Claimed)
    text = f"task {record.id}: {type(fact).__name__} belongs to attempt {fact.attempt}, but {expected} is expected"
    return StaleAttempt(text) if fact.attempt < expected else IllegalTransition(text)


def _claimed(after: TaskRecord, fact: Claimed) -> None:
    after.attempt = fact.attempt
    after.holder = fact.holder
    after.lease_until = fact.lease_until
    after.not_before = 0
    after.progress = 0.0
    after.progress_message = ""


def _progressed(after: TaskRecord, fact: Progressed) -> None:
    after.progress = max(after.progress, fact.fraction)
    after.progress_message = fact.message
    after.lease_until = fact.lease_until


def _completed(after: TaskRecord, fact: Completed) -> None:
    after.result = fact.result
    after.receipt = fact.receipt
    after.progress = 1.0
    after.lease_until = 0


def _failed(after: TaskRecord, fact: Failed) -> None:
    after.failure = fact.failure
    after.lease_until = 0


def _released(after: TaskRecord, fact: Released) -> None:
    after.lost_leases += fact.reason in LOST_REASONS
    after.failures += fact.reason not in (_NO_FAILURES if after.target is not None else _NO_FAILURES_OF_ANYBODY)
    after.not_before = fact.not_before
    after.lease_until = 0


def _cancelled(after: TaskRecord, _fact: Cancelled) -> None:
    after.failure = Failure.of(ErrorCode.CANCELLED, "the requester cancelled the task")
    after.lease_until = 0


def _unchanged(_after: TaskRecord, _fact: Started | CancelRequested) -> None:
    return


_EFFECTS: dict[type[Transition], Callable[[TaskRecord, Any], None]] = {
    Claimed: _claimed,
    Started: _unchanged,
    Progressed: _progressed,
    Completed: _completed,
    Failed: _failed,
    Released: _released,
    CancelRequested: _unchanged,
    Cancelled: _cancelled,
}


def _copy(record: TaskRecord) -> TaskRecord:
    # Spelled out, because it is a quarter of the cost of a loop and runs some five times a task; a test compares it
    # with the slots of the class.
    after = TaskRecord.__new__(TaskRecord)
    after.id = record.id
    after.terminal = record.terminal
    after.task = record.task
    after.requester = record.requester
    after.target = record.target
    after.deadline = record.deadline
    after.status = record.status
    after.attempt = record.attempt
    after.failures = record.failures
    after.lost_leases = record.lost_leases
    after.holder = record.holder
    after.lease_until = record.lease_until
    after.not_before = record.not_before
    after.progress = record.progress
    after.progress_message = record.progress_message
    after.result = record.result
    after.receipt = record.receipt
    after.failure = record.failure
    after.created_at = record.created_at
    after.updated_at = record.updated_at
    after.seq = record.seq
    return after
