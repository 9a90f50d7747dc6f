"""Records and facts as rows, and back, without loss.

A value stands in one place only: the prompt, the result and the failure of a task are not repeated in its facts, which
are put together from the rows of the task. What is read was validated when it was written, and is validated again,
because a file may have been edited.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from protocol import (
    DEFAULT_PRIORITY,
    DEFAULT_RETRY,
    Cancelled,
    CancelRequested,
    Claimed,
    Completed,
    ErrorCode,
    Fact,
    Failed,
    Failure,
    PeerId,
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
# The end of the calendar of SQLite, and of ours.
_LAST_MS = 253_402_300_799_999
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
"""The five words of the column `status`."""
_USUAL = {
    "pending": TaskStatus.PENDING,
    "claimed": TaskStatus.CLAIMED,
    "in_progress": TaskStatus.EXECUTING,
    "completed": TaskStatus.COMPLETE,
    "failed": TaskStatus.FAILED,
}
"""What a word means, unless `state` in the column `rest` says otherwise."""

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
    "project",
    "timestamp_ms",
    "target",
    "deadline_ms",
    "extra",
)
STATUS_COLUMNS = (
    "task_id",
    "status",
    "assigned_agent_id",
    "claimed_at",
    "lease_expires_at",
    "seq",
    "attempt",
    "updated_ms",
    "rest",
)
RESULT_COLUMNS = ("task_id", "result", "duration_ms", "artifacts", "failure")
EVENT_COLUMNS = ("task_id", "seq", "fact", "at_ms", "attempt", "body")

MAY_BE_EMPTY = frozenset(
    {"target", "extra", "assigned_agent_id", "claimed_at", "lease_expires_at", "rest", "artifacts", "failure", "body"}
)
"""Text that is NULL in the database when it is empty in a row: `sqlite3` takes ten times as long to bind None."""
MAY_BE_NEGATIVE = frozenset({"deadline_ms"})
"""Numbers that are NULL in the database when they are -1 in a row."""

READ_COLUMNS = (
    "uuid",
    "description",
    "persona_id",
    "created_by",
    *TASK_COLUMNS[TASK_COLUMNS.index("created_ms") :],
    "format",
    "status",
    "assigned_agent_id",
    *STATUS_COLUMNS[STATUS_COLUMNS.index("lease_expires_at") :],
    *RESULT_COLUMNS[1:],
)
"""What `read_record` wants, from `tasks`, `task_status` and `task_results`."""

_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_RETRY_FIELDS = tuple(field.name for field in fields(RetryPolicy))


# --- to rows ---------------------------------------------------------------------------------------------------------


def task_row(row_id: int, record: TaskRecord) -> Row:
    """Return the row of `tasks`, in the order of `TASK_COLUMNS`."""
    task = record.task
    return (
        row_id,
        task.id,
        _title(task),
        task.prompt,
        task.persona or ANYONE,
        record.requester,
        _utc_text(record.created_at // 1000),
        record.created_at,
        task.kind,
        task.project,
        task.timestamp,
        record.target or "",
        -1 if record.deadline is None else record.deadline,
        _extra(task, record.requester),
    )


def status_row(row_id: int, record: TaskRecord, claimed_ms: int | None) -> Row:
    """Return the row of `task_status`, in the order of `STATUS_COLUMNS`.

    Args:
        row_id: the integer key of the task.
        record: what to keep.
        claimed_ms: when it was claimed; None when it was not since the last row.
    """
    return (
        row_id,
        STATUS_WORDS[record.status],
        record.holder or "",
        "" if claimed_ms is None else _utc_text(claimed_ms // 1000),
        _exact_text(record.lease_until) if record.lease_until else "",
        record.seq,
        record.attempt,
        record.updated_at,
        _rest(record),
    )


def result_row(row_id: int, result: TaskResult) -> Row:
    """Return the row of `task_results` for a task that is complete, in the order of `RESULT_COLUMNS`."""
    artifacts = _to_json(result.to_dict()["artifacts"]) if result.artifacts else ""
    return (row_id, result.result, result.duration_ms, artifacts, "")


def failure_row(row_id: int, failure: Failure) -> Row:
    """Return the row of `task_results` for a task that has none: its key and its failure."""
    return (row_id, _to_json(failure.to_dict()))


def event_row(row_id: int, seq: int, fact: Fact) -> Row:
    """Return the row of `events`, in the order of `EVENT_COLUMNS`."""
    kind = type(fact)
    body = _BODY_WRITERS.get(kind)
    return (
        row_id,
        seq,
        kind.__name__,
        fact.at,
        0 if kind in _WITHOUT_ATTEMPT else fact.attempt,  # type: ignore[union-attr]
        "" if body is None else body(fact),
    )


def _title(task: Task) -> str:
    title = task.metadata.get("title") if task.metadata else None
    text = title if isinstance(title, str) and title else task.prompt
    return text[:MAX_TITLE_CHARS].partition("\n")[0]


def _extra(task: Task, requester: PeerId) -> str:
    extra: dict[str, Any] = {}
    if task.sender != requester:
        extra["sender"] = task.sender
    if task.params:
        extra["params"] = task.params
    if task.priority != DEFAULT_PRIORITY:
        extra["priority"] = task.priority
    if task.session_id is not None:
        extra["session_id"] = task.session_id
    if task.depends_on:
        extra["depends_on"] = task.depends_on
    if task.timeout_ms is not None:
        extra["timeout_ms"] = task.timeout_ms
    if task.retry is not DEFAULT_RETRY and task.retry != DEFAULT_RETRY:
        extra["retry"] = {name: getattr(task.retry, name) for name in _RETRY_FIELDS}
    if task.metadata:
        extra["metadata"] = task.metadata
    return _to_json(extra) if extra else ""


def _rest(record: TaskRecord) -> str:
    status = record.status
    rest: dict[str, Any] = {}
    if status is not _USUAL[STATUS_WORDS[status]]:
        rest["state"] = status.value
    if record.failures:
        rest["failures"] = record.failures
    if record.lost_leases:
        rest["lost_leases"] = record.lost_leases
    if record.not_before:
        rest["not_before"] = record.not_before
    if record.progress != (1.0 if status is TaskStatus.COMPLETE else 0.0):
        rest["progress"] = record.progress
    if record.progress_message:
        rest["progress_message"] = record.progress_message
    if record.lease_until > _LAST_MS:
        rest["lease_until"] = record.lease_until
    return _to_json(rest) if rest else ""


@lru_cache(_KEPT_TIMES)
def _utc_text(seconds: int) -> str:
    """Return a time as SQLite's `datetime` writes it; what it cannot write is the end of its calendar."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "9999-12-31 23:59:59"


def _exact_text(milliseconds: int) -> str:
    return f"{_utc_text(milliseconds // 1000)}.{milliseconds % 1000:03}"


_WITHOUT_ATTEMPT = frozenset({Submitted, CancelRequested, Cancelled})
# Every claim has one of a few holders.
_quote = lru_cache(_KEPT_TIMES)(_to_json)


def _claim_body(fact: Claimed) -> str:
    return f'{{"holder":{_quote(fact.holder)},"lease_until":{fact.lease_until}}}'


def _progress_body(fact: Progressed) -> str:
    return _to_json({"fraction": fact.fraction, "message": fact.message, "lease_until": fact.lease_until})


def _release_body(fact: Released) -> str:
    return _to_json({"reason": fact.reason.value, "message": fact.message, "not_before": fact.not_before})


_BODY_WRITERS: dict[type[Fact], Callable[[Any], str]] = {
    Claimed: _claim_body,
    Progressed: _progress_body,
    Released: _release_body,
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
    record.lease_until = 0 if lease is None else _milliseconds(lease)
    _restore_rest(record, word, {} if rest is None else json.loads(rest))
    record.result = None if duration_ms is None else _result(record.id, result, duration_ms, artifacts)
    record.failure = None if failure is None else Failure.from_dict(json.loads(failure))
    return record


def _restore_rest(record: TaskRecord, word: str, rest: dict[str, Any]) -> None:
    status = TaskStatus(rest["state"]) if "state" in rest else _USUAL[word]
    record.status = status
    record.terminal = status in _TERMINAL
    record.failures = rest.get("failures", 0)
    record.lost_leases = rest.get("lost_leases", 0)
    record.not_before = rest.get("not_before", 0)
    record.progress = rest.get("progress", 1.0 if status is TaskStatus.COMPLETE else 0.0)
    record.progress_message = rest.get("progress_message", "")
    record.lease_until = rest.get("lease_until", record.lease_until)


def _milliseconds(exact_text: str) -> int:
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
