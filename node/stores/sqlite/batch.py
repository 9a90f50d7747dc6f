"""What goes into one commit."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from node.interfaces import Change
from protocol import Claimed, Fact, TaskId, TaskRecord

# The event loop hears of a commit in one call, which takes some five microseconds a change: 1.3 ms. Larger commits
# would save little: what each costs besides is spread over a hundred changes already.
MAX_CHANGES: Final = 256
# A transaction is held in memory and in the WAL. One task or result may have 16 MB, and a batch ends after the one that
# goes over this.
MAX_BYTES: Final = 16 * 1024 * 1024


class Forgotten(tuple[TaskId, ...]):
    """Tasks that are to be dropped, in line with what was appended before."""

    __slots__ = ()


class NewTasks(tuple[Change, ...]):
    """The first changes of several tasks, which are saved together or not at all."""

    __slots__ = ()


Item = Sequence[Change] | NewTasks | Forgotten


class Entry:
    """All that a batch has of one task: only its last record is written, and every fact.

    Attributes:
        seq_before: the number that its record has on disk; 0 when it has none.
        record: the last one.
        facts: from `seq_before` + 1 on.
        row_id: the integer key of the task, as the database finds or gives it.
    """

    __slots__ = ("facts", "record", "row_id", "seq_before")

    def __init__(self, changes: Sequence[Change]) -> None:
        self.seq_before = changes[0].record.seq - 1
        self.record: TaskRecord = changes[-1].record
        self.row_id = 0
        self.facts: list[Fact] = [change.fact for change in changes]

    def add(self, changes: Sequence[Change]) -> None:
        """Add what follows."""
        self.record = changes[-1].record
        self.facts.extend(change.fact for change in changes)

    def claimed_ms(self) -> int | None:
        """Return when the task was last claimed in this batch."""
        return next((fact.at for fact in reversed(self.facts) if type(fact) is Claimed), None)


@dataclass(slots=True)
class Batch:
    """What goes into one commit: first the changes, then what is forgotten.

    Attributes:
        changes: in the order of appending.
        entries: the same by task.
        forgotten: tasks to drop.
        items: how many items of the line it took.
        whole: whether it is refused as a whole when anything in it is.
    """

    changes: list[Change] = field(default_factory=list)
    entries: dict[TaskId, Entry] = field(default_factory=dict)
    forgotten: set[TaskId] = field(default_factory=set)
    items: int = 0
    whole: bool = False
    payload_bytes: int = 0

    @property
    def full(self) -> bool:
        """Whether nothing more goes into it."""
        return self.whole or len(self.changes) + len(self.forgotten) >= MAX_CHANGES or self.payload_bytes >= MAX_BYTES

    def add_new(self, tasks: NewTasks) -> None:
        """Fill the batch with tasks that are saved together."""
        self.whole = True
        for change in tasks:
            self.add((change,))

    def add(self, changes: Sequence[Change]) -> None:
        """Add the next changes of a task."""
        task_id = changes[0].record.id
        entry = self.entries.get(task_id)
        if entry is None:
            self.entries[task_id] = Entry(changes)
        else:
            entry.add(changes)
        self.changes.extend(changes)
        self.payload_bytes += _payload_bytes(changes)


def fill_batch(batch: Batch, line: deque[Item]) -> None:
    """Move what goes into the next commit from the front of the line into a batch; others may add to the line."""
    while line and not batch.full:
        item = line[0]
        if isinstance(item, Forgotten):
            batch.forgotten.update(item)
        elif isinstance(item, NewTasks):
            if batch.items:
                break
            batch.add_new(item)
        elif item[0].record.id in batch.forgotten:
            break  # it comes again after it was forgotten
        else:
            batch.add(item)
        line.popleft()
        batch.items += 1


def _payload_bytes(changes: Sequence[Change]) -> int:
    size = len(changes[0].record.task.prompt) if changes[0].record.seq == 1 else 0
    result = changes[-1].record.result
    if result is not None:
        size += len(result.result) + sum(len(part.content) for part in result.artifacts)
    return size
