"""Records and facts as rows, and back, without loss.

A value stands in one place only: the prompt, the result and the failure of a task are not repeated in its facts, which
are put together from the rows of the task. What is read was validated when it was written, and is validated again,
because a file may have been edited.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

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
    Released,
    RetryPolicy,
    Started,
    Submitted,
    Task,
    TaskId,
    TaskRecord,
    TaskResult,
    TaskStatus,
)

Row = tuple[Any, ...]

# What `task_status.format` says of the rows that this program writes, and the only one that it reads.
FORMAT = 1
# The persona of tasks that name none; no name of a persona begins with it.
ANYONE = "*"
# A line on a screen.
MAX_TITLE_CHARS = 80
# Times of one batch lie within a few seconds.
_KEPT_TIMES = 256

STATUS_WORDS = {
    TaskStatus.PENDING: "pending",
    TaskStatus.CLAIMED: "claimed",
    TaskStatus.EXECUTING: "in_progress",
    TaskStatus.CANCELLING: "in_progress",
    TaskStatus.COMPLETE: "completed",
    TaskStatus.FAILED: "failed",
    TaskStatus.CANCELLED: "failed",
}
"""The five words of the column `status`; the column `state` has the status itself."""

TASK_COLUMNS = (
    "id",
    "uuid",
    "title",
    "description",
    "persona_id",
    "created_by",
    "created_at",
    "created_ms",
    "kind",
    "priority",
    "project",
    "session_id",
    "sender",
    "timestamp_ms",
    "timeout_ms",
    "target",
    "deadline_ms",
    "extra",
)
STATUS_COLUMNS = (
    "task_id",
    "claimed_at",
    "status",
    "assigned_agent_id",
    "lease_expires_at",
    "seq",
    "format",
    "state",
    "attempt",
    "failures",
    "lost_leases",
    "lease_ms",
    "not_before_ms",
    "updated_ms",
    "progress",
    "progress_message",
    "result",
    "duration_ms",
    "artifacts",
    "failure",
)
EVENT_COLUMNS = ("task_id", "seq", "fact", "at_ms", "attempt", "body")

READ_COLUMNS = (
    "uuid",
    "description",
    "persona_id",
    "created_by",
    "created_ms",
    *TASK_COLUMNS[TASK_COLUMNS.index("kind") :],
    "assigned_agent_id",
    *STATUS_COLUMNS[STATUS_COLUMNS.index("seq") :],
)
"""What `read_record` wants, from `tasks` and `task_status`."""

_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_DEFAULT_RETRY = RetryPolicy()


# --- to rows ---------------------------------------------------------------------------------------------------------


def task_row(row_id: int, record: TaskRecord) -> Row:
    """Return the row of `tasks`, in the order of `TASK_COLUMNS`."""
    task = record.task
    requester = record.requester
    return (
        row_id,
        task.id,
        _title(task),
        task.prompt,
        task.persona or ANYONE,
        requester,
        _utc_text(record.created_at // 1000),
        record.created_at,
        task.kind,
        task.priority,
        task.project,
        task.session_id,
        None if task.sender == requester else task.sender,
        task.timestamp,
        task.timeout_ms,
        record.target,
        record.deadline,
        _extra(task),
    )


def status_row(row_id: int, record: TaskRecord, claimed_ms: int | None) -> Row:
    """Return the row of `task_status`, in the order of `STATUS_COLUMNS`.

    Args:
        row_id: the integer key of the task.
        record: what to keep.
        claimed_ms: when it was claimed; None when it was not since the last row.
    """
    status = record.status
    result = record.result
    failure = record.failure
    return (
        row_id,
        None if claimed_ms is None else _utc_text(claimed_ms // 1000),
        STATUS_WORDS[status],
        record.holder,
        _utc_text(record.lease_until // 1000) if record.lease_until else None,
        record.seq,
        FORMAT,
        status.value,
        record.attempt,
        record.failures,
        record.lost_leases,
        record.lease_until,
        record.not_before,
        record.updated_at,
        record.progress,
        record.progress_message,
        None if result is None else result.result,
        None if result is None else result.duration_ms,
        _to_json(result.to_dict()["artifacts"]) if result is not None and result.artifacts else None,
        None if failure is None else _to_json(failure.to_dict()),
    )


def event_row(row_id: int, seq: int, fact: Fact) -> Row:
    """Return the row of `events`, in the order of `EVENT_COLUMNS`."""
    kind = type(fact)
    body = _BODY_WRITERS.get(kind)
    return (
        row_id,
        seq,
        kind.__name__,
        fact.at,
        None if kind in _WITHOUT_ATTEMPT else fact.attempt,  # type: ignore[union-attr]
        None if body is None else _to_json(body(fact)),
    )


def _title(task: Task) -> str:
    title = task.metadata.get("title") if task.metadata else None
    text = title if isinstance(title, str) and title else task.prompt
    return text[:MAX_TITLE_CHARS].partition("\n")[0]


def _extra(task: Task) -> str | None:
    extra: dict[str, Any] = {}
    if task.params:
        extra["params"] = task.params
    if task.depends_on:
        extra["depends_on"] = task.depends_on
    if task.retry is not _DEFAULT_RETRY and task.retry != _DEFAULT_RETRY:
        extra["retry"] = {name: getattr(task.retry, name) for name in RetryPolicy.__slots__}  # type: ignore[attr-defined]
    if task.metadata:
        extra["metadata"] = task.metadata
    return _to_json(extra) if extra else None


@lru_cache(_KEPT_TIMES)
def _utc_text(seconds: int) -> str:
    """Return a time as SQLite's `datetime` writes it; what it cannot write is the end of its calendar."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "9999-12-31 23:59:59"


_WITHOUT_ATTEMPT = frozenset({Submitted, CancelRequested, Cancelled})
_BODY_WRITERS: dict[type[Fact], Callable[[Any], dict[str, Any]]] = {
    Claimed: lambda fact: {"holder": fact.holder, "lease_until": fact.lease_until},
    Progressed: lambda fact: {
        "fraction": fact.fraction,
        "message": fact.message,
        "lease_until": fact.lease_until,
    },
    Released: lambda fact: {
        "reason": fact.reason.value,
        "message": fact.message,
        "not_before": fact.not_before,
    },
}


# --- from rows -------------------------------------------------------------------------------------------------------


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
        priority,
        project,
        session_id,
        sender,
        timestamp,
        timeout_ms,
        record.target,
        record.deadline,
        extra,
        record.holder,
        record.seq,
        row_format,
        state,
        record.attempt,
        record.failures,
        record.lost_leases,
        record.lease_until,
        record.not_before,
        record.updated_at,
        record.progress,
        record.progress_message,
        result,
        duration_ms,
        artifacts,
        failure,
    ) = row
    if row_format != FORMAT:
        raise ValueError(f"its rows have format {row_format}, and this version of peertask reads format {FORMAT}")
    fields = {
        "id": uuid,
        "prompt": prompt,
        "sender": record.requester if sender is None else sender,
        "timestamp": timestamp,
        "kind": kind,
        "priority": priority,
        "project": project,
        "session_id": session_id,
        "persona": None if persona == ANYONE else persona,
        "timeout_ms": timeout_ms,
    }
    record.task = Task.from_dict(fields if extra is None else {**json.loads(extra), **fields})
    record.id = record.task.id
    record.status = _STATES[state]
    record.terminal = record.status in _TERMINAL
    record.result = None if duration_ms is None else _result(record.id, result, duration_ms, artifacts)
    record.failure = None if failure is None else Failure.from_dict(json.loads(failure))
    return record


def _result(task_id: TaskId, text: str, duration_ms: int, artifacts: str | None) -> TaskResult:
    fields = {"task_id": task_id, "result": text, "duration_ms": duration_ms}
    return TaskResult.from_dict(fields if artifacts is None else {**fields, "artifacts": json.loads(artifacts)})


_STATES = {status.value: status for status in TaskStatus}
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
    return Completed(record.id, at, attempt, record.result)


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
