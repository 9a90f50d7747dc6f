"""Records and facts as rows, without loss.

A value stands in one place only: the prompt, the result and the failure of a task are not repeated in its facts. What
is usual is left out, because each value that is bound takes a thirtieth of the time of its row.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from node.stores.sqlite.columns import ANYONE, LAST_MS, STATUS_WORDS, USUAL_STATUS, Row
from protocol import (
    DEFAULT_PRIORITY,
    DEFAULT_RETRY,
    Cancelled,
    CancelRequested,
    Claimed,
    Fact,
    Failure,
    PeerId,
    Progressed,
    Released,
    RetryPolicy,
    Submitted,
    Task,
    TaskRecord,
    TaskResult,
    TaskStatus,
)

# A line on a screen.
MAX_TITLE_CHARS = 80
# Times of one batch lie within a few seconds.
_KEPT_TIMES = 256

_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_RETRY_FIELDS = tuple(field.name for field in fields(RetryPolicy))


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
        exact_text(record.lease_until) if record.lease_until else "",
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
    extra |= _set_in_a_graph(task)
    if task.timeout_ms is not None:
        extra["timeout_ms"] = task.timeout_ms
    if task.retry is not DEFAULT_RETRY and task.retry != DEFAULT_RETRY:
        extra["retry"] = {name: getattr(task.retry, name) for name in _RETRY_FIELDS}
    if task.metadata:
        extra["metadata"] = task.metadata
    return _to_json(extra) if extra else ""


def _set_in_a_graph(task: Task) -> dict[str, Any]:
    values = {"on_failed_dependency": task.on_failed_dependency, "parent_id": task.parent_id}
    return {name: value for name, value in values.items() if value not in ("fail", None)}


def _rest(record: TaskRecord) -> str:
    status = record.status
    rest: dict[str, Any] = {}
    if status is not USUAL_STATUS[STATUS_WORDS[status]]:
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
    if record.lease_until > LAST_MS:
        rest["lease_until"] = record.lease_until
    if record.receipt is not None:
        rest["receipt"] = record.receipt.to_dict()
    return _to_json(rest) if rest else ""


@lru_cache(_KEPT_TIMES)
def _utc_text(seconds: int) -> str:
    """Return a time as SQLite's `datetime` writes it; what it cannot write is the end of its calendar."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "9999-12-31 23:59:59"


def exact_text(milliseconds: int) -> str:
    """Return a time since the epoch as SQLite's functions write it, with milliseconds."""
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
