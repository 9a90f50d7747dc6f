"""What has happened to a task, told again from what is kept of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from node.interfaces import Change, Lagged
from protocol import Cancelled, Completed, Fact, Failed, Submitted, TaskRecord, TaskStatus, advance, begin


def replay(record: TaskRecord, facts: Sequence[Fact], after_seq: int) -> list[Change | Lagged]:
    """Return the changes after a fact up to a record; the last is always among them, and what is missing is named.

    Args:
        record: how the task stands; later facts are left out.
        facts: what is kept of the task, in order and without a gap.
        after_seq: the number of the last fact that the reader knows.
    """
    changes = [change for change in retell(facts) if after_seq < change.record.seq <= record.seq]
    if not changes and record.seq > after_seq and (closing := _closing_fact(record)) is not None:
        changes = [Change(record, closing)]
    first = changes[0].record.seq if changes else record.seq + 1
    gap = first - after_seq - 1
    return [Lagged(gap), *changes] if gap > 0 else [*changes]


def retell(facts: Iterable[Fact]) -> list[Change]:
    """Return the changes that facts from the first on have made; empty when the first is not there."""
    changes: list[Change] = []
    for fact in facts:
        if isinstance(fact, Submitted):
            changes.append(Change(begin(fact), fact))
        elif changes:
            changes.append(Change(advance(changes[-1].record, fact), fact))
    return changes


def _closing_fact(record: TaskRecord) -> Fact | None:
    """Return the last fact of a task that has ended, which its record tells."""
    if record.result is not None:
        return Completed(record.id, record.updated_at, record.attempt, record.result, record.receipt)
    if record.status is TaskStatus.CANCELLED:
        return Cancelled(record.id, record.updated_at)
    if record.failure is not None:
        return Failed(record.id, record.updated_at, record.attempt, record.failure)
    return None
