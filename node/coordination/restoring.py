"""Decides what is recorded of a task that is put back from what was kept of it outside of the store."""

from __future__ import annotations

from collections.abc import Sequence

from node.coordination.retries import after_restart
from protocol import (
    Cancelled,
    Claimed,
    Completed,
    Fact,
    Failed,
    PeerId,
    Started,
    Submitted,
    TaskRecord,
    TaskStatus,
)


def restored_history(record: TaskRecord, facts: Sequence[Fact], own_id: PeerId, now: int) -> list[Fact]:
    """Return the facts that bring a task back, from its submission on.

    Args:
        record: the task, as it was when it was kept.
        facts: its last facts.
        own_id: this node.
        now: milliseconds since the epoch.

    When the facts are all there they are told again, with their numbers; and what was under way at their end is
    released, because nobody is doing it any more. Otherwise the shortest history with the same outcome is told.
    """
    if len(facts) != record.seq:
        return shortest_history(record)
    under_way = not record.terminal and record.status is not TaskStatus.PENDING
    return [*facts, after_restart(record, own_id, now)] if under_way else [*facts]


def shortest_history(record: TaskRecord) -> list[Fact]:
    """Return the fewest facts that lead to the outcome of a task; one that has not ended waits after them."""
    submitted = Submitted(record.task, record.created_at, record.requester, record.target, record.deadline)
    ended = record.updated_at
    if record.result is not None:
        holder = record.holder or record.requester
        claimed = Claimed(record.id, ended, 1, holder, 0)
        completed = Completed(record.id, ended, 1, record.result, record.receipt)
        return [submitted, claimed, Started(record.id, ended, 1), completed]
    if record.status is TaskStatus.CANCELLED:
        return [submitted, Cancelled(record.id, ended)]
    if record.failure is not None:
        return [submitted, Failed(record.id, ended, 0, record.failure)]
    return [submitted]
