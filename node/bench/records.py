"""A store that already holds many finished tasks."""

from __future__ import annotations

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


def stored_records(number: int) -> Store:
    """Return a memory store with so many finished no-op tasks, each with texts of its own."""
    store = MemoryStore()
    for index in range(number):
        _finish(store, index)
    return store


def _finish(store: Store, index: int) -> None:
    text = str(index).rjust(_BODY_CHARS, "x")
    task = Task.new(text, _SOMEBODY, timestamp=index, kind="echo")
    birth = Submitted(task, index, _SOMEBODY, _SOMEBODY)
    record: TaskRecord = begin(birth)
    store.append(Change(record, birth))
    steps: tuple[Transition, ...] = (
        Claimed(task.id, index, 1, _SOMEBODY, index),
        Started(task.id, index, 1),
        Completed(task.id, index, 1, TaskResult(task.id, text + "", 0)),
    )
    for fact in steps:
        record = advance(record, fact)
        store.append(Change(record, fact))
