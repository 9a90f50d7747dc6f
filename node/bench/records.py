"""A store that already holds many finished tasks."""

from __future__ import annotations

from collections.abc import Sequence

from node.interfaces import Change, Store
from node.stores.memory import MemoryStore
from protocol import (
    Claimed,
    Completed,
    PeerId,
    Started,
    Submitted,
    Task,
    TaskRecord,
    TaskResult,
    Transition,
    advance,
    begin,
)

_SOMEBODY = PeerId("12D3KooWBenchmark")
_BODY_CHARS = 200


async def stored_records(number: int) -> Store:
    """Return a memory store with so many finished no-op tasks, each with texts of its own."""
    store = MemoryStore()
    async with store.running(_ignore):
        for index in range(number):
            store.append(finished_task(index))
    return store


def _ignore(_changes: Sequence[Change]) -> None:
    """Nobody waits for these to be kept."""


def finished_task(index: int) -> list[Change]:
    """Return all that happens to one no-op task."""
    text = str(index).rjust(_BODY_CHARS, "x")
    task = Task.new(text, _SOMEBODY, timestamp=index, kind="echo")
    birth = Submitted(task, index, _SOMEBODY, _SOMEBODY)
    record: TaskRecord = begin(birth)
    changes = [Change(record, birth)]
    steps: tuple[Transition, ...] = (
        Claimed(task.id, index, 1, _SOMEBODY, index),
        Started(task.id, index, 1),
        Completed(task.id, index, 1, TaskResult(task.id, text + "", 0)),
    )
    for fact in steps:
        record = advance(record, fact)
        changes.append(Change(record, fact))
    return changes
