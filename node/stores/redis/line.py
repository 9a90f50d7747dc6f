"""What was appended and is not saved yet, in order, and how much of it is saved in one step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from node.interfaces import Change
from protocol import ErrorCode, PeertaskError, TaskId, TaskRecord

# Their values are made at once, at some 40 microseconds each: the event loop is held up for less than two milliseconds.
MAX_GROUPED_TASKS: Final = 32
# As large as the largest task: a group of such ones goes one by one, and a server answers others in between.
MAX_GROUPED_BYTES: Final = 1024 * 1024


@dataclass(slots=True)
class Group:
    """What is saved in one step: changes first, then what is forgotten.

    Attributes:
        saves: what was appended, in order: changes of one task, or new tasks that came together.
        forgets: tasks to drop, none of which has a later change in the group.
        maybe_saved: whether an attempt to save it was made whose end is unknown.
    """

    saves: list[Sequence[Change]] = field(default_factory=list)
    forgets: list[TaskId] = field(default_factory=list)
    maybe_saved: bool = False

    @property
    def empty(self) -> bool:
        """Whether everything in it is saved."""
        return not (self.saves or self.forgets)

    def changes(self) -> list[Change]:
        """Return all changes, in the order of appending."""
        return [change for changes in self.saves for change in changes]

    def by_task(self) -> Iterator[list[Change]]:
        """Yield the changes of each task, in order."""
        found: dict[TaskId, list[Change]] = {}
        for change in self.changes():
            found.setdefault(change.record.id, []).append(change)
        yield from found.values()


class Line:
    """What waits to be saved.

    Attributes:
        appended: how many items have come in so far, ever.
        done: how many of them are saved.
    """

    def __init__(self) -> None:
        self.appended = 0
        self.done = 0
        self._items: deque[Sequence[Change] | TaskId] = deque()

    def __len__(self) -> int:
        return self.appended - self.done

    def add(self, item: Sequence[Change] | TaskId) -> None:
        """Put changes of a task in line, or a task to forget."""
        self._items.append(item)
        self.appended += 1

    def take(self) -> Group:
        """Take the next group out; empty when nothing waits."""
        group, tasks, size = Group(), set[TaskId](), 0
        while self._items and len(tasks) < MAX_GROUPED_TASKS and size < MAX_GROUPED_BYTES:
            item = self._items[0]
            if isinstance(item, str):
                group.forgets.append(item)
                tasks.add(item)
            else:
                records = {change.record.id: change.record for change in item}
                if not records.keys().isdisjoint(group.forgets):
                    break
                group.saves.append(item)
                size += sum(map(_size_of, records.values()))
                tasks.update(records)
            self._items.popleft()
        return group


def _size_of(record: TaskRecord) -> int:
    result = record.result
    text = len(record.task.prompt)
    if result is not None:
        text += len(result.result) + sum(len(artifact.content) for artifact in result.artifacts)
    return text


class LastSeqs:
    """The number of the last fact that was taken in, of each task."""

    def __init__(self) -> None:
        self._seqs: dict[TaskId, int] = {}

    def take(self, changes: Sequence[Change]) -> None:
        """Take the numbers of some changes of one task in.

        Raises:
            PeertaskError: code CONFLICT, when they do not follow on what was taken in before.
        """
        first, last = changes[0].record, changes[-1].record
        expected = self._seqs.get(first.id, 0) + 1
        if first.seq != expected or last.seq != expected + len(changes) - 1:
            raise PeertaskError(
                f"task {first.id}: fact number {first.seq} cannot be kept, because number {expected} is next",
                code=ErrorCode.CONFLICT,
            )
        self._seqs[first.id] = last.seq

    def take_new(self, changes: Sequence[Change]) -> None:
        """Take the first numbers of several tasks in.

        Raises:
            PeertaskError: code CONFLICT, when one of them was taken in before.
        """
        for record, _ in changes:
            if record.id in self._seqs:
                raise PeertaskError(f"task {record.id} is kept already", code=ErrorCode.CONFLICT)
        self._seqs.update((record.id, record.seq) for record, _ in changes)

    def know(self, task_id: TaskId, seq: int) -> None:
        """Take in what the server holds."""
        self._seqs[task_id] = seq

    def forget(self, task_id: TaskId) -> None:
        """Let the task begin anew."""
        self._seqs.pop(task_id, None)
