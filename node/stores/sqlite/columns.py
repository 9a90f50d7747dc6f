"""What the columns of the tables are called, and what their words mean."""

from __future__ import annotations

from typing import Any

from protocol import TaskStatus

Row = tuple[Any, ...]

# What `task_status.format` says of the rows that this program writes, and the only one that it reads.
FORMAT = 1
# The persona of tasks that name none; no name of a persona begins with it.
ANYONE = "*"
# The end of the calendar of SQLite, and of ours.
LAST_MS = 253_402_300_799_999
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
USUAL_STATUS = {
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
