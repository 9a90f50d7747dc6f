"""Records and facts from rows.

What is read was validated when it was written, and is validated again, because a file may have been edited.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from node.stores.sqlite.columns import ANYONE, FORMAT, USUAL_STATUS, Row
from protocol import (
    Cancelled,
    CancelRequested,
    Claimed,
    Completed,
    ErrorCode,
    Fact,
    Failed,
    Failure,
    PeertaskError,
    Progressed,
    Receipt,
    Released,
    Started,
    Submitted,
    Task,
    TaskId,
    TaskRecord,
    TaskResult,
    TaskStatus,
)


def read_record(row: Row) -> TaskRecord:
    """Return the record of a row in the order of `READ_COLUMNS`.

    Raises:
        PeertaskError: code STORE_FAILED; names the task, and what is wrong with its rows.
    """
    try:
        return _record(row)
    except (PeertaskError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(f"task {row[0]}", error) from error


def read_fact(record: TaskRecord, row: Row) -> Fact:
    """Return the fact of a row of `events`.

    Args:
        record: of the task, at this fact or later.
        row: the columns after `task_id`.

    Raises:
        PeertaskError: code STORE_FAILED; names the task and the fact, and what is wrong with the row.
    """
    seq, name, at, attempt, body = row
    try:
        return _FACT_READERS[name](record, at, attempt, {} if body is None else json.loads(body))
    except (PeertaskError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(f"fact {seq} of task {record.id}", error) from error


def _unreadable(what: str, error: Exception) -> PeertaskError:
    reason = f"{error.args[0]!r} is unknown" if isinstance(error, KeyError) else getattr(error, "message", str(error))
    return PeertaskError(
        f"{what} cannot be read: {reason}",
        code=ErrorCode.STORE_FAILED,
        remedy="Use the version of peertask that wrote it, or take it out with DELETE FROM tasks WHERE uuid = …",
    )


def _record(row: Row) -> TaskRecord:
    record = TaskRecord.__new__(TaskRecord)
    (
        uuid,
        prompt,
        persona,
        record.requester,
        record.created_at,
        kind,
        project,
        timestamp,
        record.target,
        record.deadline,
        extra,
        row_format,
        word,
        record.holder,
        lease,
        record.seq,
        record.attempt,
        record.updated_at,
        rest,
        result,
        duration_ms,
        artifacts,
        failure,
    ) = row
    if row_format != FORMAT:
        raise ValueError(f"its rows have format {row_format}, and this version of peertask reads format {FORMAT}")
    task = {
        "id": uuid,
        "prompt": prompt,
        "sender": record.requester,
        "timestamp": timestamp,
        "kind": kind,
        "project": project,
        "persona": None if persona == ANYONE else persona,
    }
    record.task = Task.from_dict(task if extra is None else {**task, **json.loads(extra)})
    record.id = record.task.id
    record.lease_until = 0 if lease is None else milliseconds(lease)
    _restore_rest(record, word, {} if rest is None else json.loads(rest))
    record.result = None if duration_ms is None else _result(record.id, result, duration_ms, artifacts)
    record.failure = None if failure is None else Failure.from_dict(json.loads(failure))
    return record


def _restore_rest(record: TaskRecord, word: str, rest: dict[str, Any]) -> None:
    status = TaskStatus(rest["state"]) if "state" in rest else USUAL_STATUS[word]
    record.status = status
    record.terminal = status in _TERMINAL
    record.failures = rest.get("failures", 0)
    record.lost_leases = rest.get("lost_leases", 0)
    record.not_before = rest.get("not_before", 0)
    record.progress = rest.get("progress", 1.0 if status is TaskStatus.COMPLETE else 0.0)
    record.progress_message = rest.get("progress_message", "")
    record.lease_until = rest.get("lease_until", record.lease_until)
    record.receipt = Receipt.from_dict(rest["receipt"]) if "receipt" in rest else None


def milliseconds(exact_text: str) -> int:
    """Return the time since the epoch that a text of SQLite stands for; raises ``ValueError``."""
    return (datetime.fromisoformat(f"{exact_text}+00:00") - _EPOCH) // _MILLISECOND


def _result(task_id: TaskId, text: str, duration_ms: int, artifacts: str | None) -> TaskResult:
    shape = {"task_id": task_id, "result": text, "duration_ms": duration_ms}
    return TaskResult.from_dict(shape if artifacts is None else {**shape, "artifacts": json.loads(artifacts)})


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_TERMINAL = frozenset(status for status in TaskStatus if status.terminal)


def _submitted(record: TaskRecord, at: int, _attempt: None, _body: dict[str, Any]) -> Fact:
    return Submitted(record.task, at, record.requester, record.target, record.deadline)


def _claimed(record: TaskRecord, at: int, attempt: int, body: dict[str, Any]) -> Fact:
    return Claimed(record.id, at, attempt, body["holder"], body["lease_until"])


def _started(record: TaskRecord, at: int, attempt: int, _body: dict[str, Any]) -> Fact:
    return Started(record.id, at, attempt)


def _progressed(record: TaskRecord, at: int, attempt: int, body: dict[str, Any]) -> Fact:
    return Progressed(record.id, at, attempt, body["fraction"], body["message"], body["lease_until"])


def _completed(record: TaskRecord, at: int, attempt: int, _body: dict[str, Any]) -> Fact:
    if record.result is None:
        raise ValueError("the task has no result")
    return Completed(record.id, at, attempt, record.result, record.receipt)


def _failed(record: TaskRecord, at: int, attempt: int, _body: dict[str, Any]) -> Fact:
    if record.failure is None:
        raise ValueError("the task has no failure")
    return Failed(record.id, at, attempt, record.failure)


def _released(record: TaskRecord, at: int, attempt: int, body: dict[str, Any]) -> Fact:
    return Released(record.id, at, attempt, ErrorCode(body["reason"]), body["message"], body["not_before"])


def _cancel_requested(record: TaskRecord, at: int, _attempt: None, _body: dict[str, Any]) -> Fact:
    return CancelRequested(record.id, at)


def _cancelled(record: TaskRecord, at: int, _attempt: None, _body: dict[str, Any]) -> Fact:
    return Cancelled(record.id, at)


_FACT_READERS: dict[str, Callable[[TaskRecord, int, Any, dict[str, Any]], Fact]] = {
    "Submitted": _submitted,
    "Claimed": _claimed,
    "Started": _started,
    "Progressed": _progressed,
    "Completed": _completed,
    "Failed": _failed,
    "Released": _released,
    "CancelRequested": _cancel_requested,
    "Cancelled": _cancelled,
}
