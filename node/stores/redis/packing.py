"""Changes as the server keeps them, and back: the arguments of the scripts, and the items of the lists of facts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from pydantic_core import from_json, to_json

from node.interfaces import Change
from node.stores.redis.keys import NodeKeys, session_key
from node.stores.redis.line import Group
from node.stores.redis.task_context import context_of
from protocol import Completed, Fact, Failed, Submitted, TaskId, TaskRecord, fact_from_dict

Argument = str | bytes | int

# What a fact says and the record says too stands in the record only: a task and its result may be large.
_IN_RECORD: Final[dict[type[Fact], tuple[str, ...]]] = {
    Submitted: ("task",),
    Completed: ("result", "receipt"),
    Failed: ("failure",),
}
_KNOWN: Final = tuple(name for names in _IN_RECORD.values() for name in names)


def pack_group(group: Group, keys: NodeKeys) -> tuple[list[str], list[Argument]]:
    """Return the keys and arguments that the script which saves takes for the changes of a group."""
    names: list[str] = []
    arguments: list[Argument] = []
    for changes in group.by_task():
        record = changes[-1].record
        session = record.task.session_id
        names.extend(keys.places(record.id))
        names.append(session_key(keys.instance, session) if session else "")
        value = context_of(record, keys.node).to_json()
        arguments.extend((record.id, record.created_at, changes[0].record.seq, value, len(changes)))
        arguments.extend(map(pack_fact, changes))
    return names, arguments


def pack_places(task_ids: Iterable[TaskId], keys: NodeKeys) -> list[str]:
    """Return the keys of some tasks, as the scripts take them."""
    return [name for task_id in task_ids for name in keys.places(task_id)]


def pack_fact(change: Change) -> bytes:
    """Return a fact as it stands in the list of its task; it begins with its number."""
    fact = change.fact
    left_out = _IN_RECORD.get(type(fact), ())
    fields = {name: value for name, value in zip(fact._fields, fact, strict=True) if name not in left_out}
    return to_json({"seq": change.record.seq, "fact": type(fact).__name__, **fields})


def unpack_facts(items: Sequence[bytes], record: TaskRecord, after_seq: int) -> list[Fact]:
    """Return the facts of a task whose number is greater than `after_seq`, with what its last record knows of them.

    Raises:
        ValueError, KeyError: an item is not a fact.
        InvalidTask: as above.
    """
    known = {name: value.to_dict() for name in _KNOWN if (value := getattr(record, name)) is not None}
    shapes: list[dict[str, Any]] = [from_json(item) for item in items]
    return [fact_from_dict({**known, **shape}) for shape in shapes if shape["seq"] > after_seq]
