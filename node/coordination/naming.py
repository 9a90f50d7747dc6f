"""Graphs as people write them: tasks by name, whose dependencies and parents are names too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

from protocol import InvalidTask, JsonObject, TaskId, abbreviate, new_task_id, parse_task_id

# A name is a title on a screen and a word on a command line; it must not be taken for a UUID or an option.
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,63}")
_TITLE: Final = "title"


class NamedGraph(NamedTuple):
    """A graph whose names are resolved.

    Attributes:
        ids: the id of each task, by its name.
        tasks: the fields of each task, in the order of the names.
        fresh: whether all ids were drawn just now, so that the graph cannot have been submitted before.
    """

    ids: dict[str, TaskId]
    tasks: list[JsonObject]
    fresh: bool


def resolve_names(named: Mapping[str, Any]) -> NamedGraph:
    """Draw an id for each task that has none, and put ids where names are.

    Args:
        named: the fields of each task, by its name. ``depends_on`` and ``parent_id`` hold names of other tasks, or ids
            of tasks that the node has already. The name becomes the title of a task that has none.

    Raises:
        InvalidTask: a name cannot be one, or a task names one that is not there: with what was probably meant.
    """
    for name, fields in named.items():
        _check_name(name)
        if not isinstance(fields, Mapping) or not isinstance(fields.get("prompt"), str):
            raise InvalidTask(f"task {name!r} has no prompt", remedy="Say what to do: prompt is the one field it needs")
    ids = {name: parse_task_id(fields.get("id") or new_task_id()) for name, fields in named.items()}
    tasks = [_resolved(name, fields, ids) for name, fields in named.items()]
    return NamedGraph(ids, tasks, not any(fields.get("id") for fields in named.values()))


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or _is_id(name):
        raise InvalidTask(
            f"{abbreviate(name)} cannot be the name of a task",
            remedy="Use 1 to 64 letters, digits, spaces and . _ -, beginning with a letter or digit",
        )


def _is_id(text: str) -> bool:
    try:
        parse_task_id(text)
    except InvalidTask:
        return False
    return True


def _resolved(name: str, fields: Mapping[str, Any], ids: Mapping[str, TaskId]) -> JsonObject:
    resolved = {**fields, "id": ids[name]}
    needed = fields.get("depends_on", ())
    if not isinstance(needed, list | tuple):
        raise InvalidTask(f"field depends_on of task {name!r}: it is not a list of names, but {abbreviate(needed)}")
    if needed:
        resolved["depends_on"] = [_id_of(other, "depends_on", name, ids) for other in needed]
    if fields.get("parent_id") is not None:
        resolved["parent_id"] = _id_of(fields["parent_id"], "parent_id", name, ids)
    metadata = fields.get("metadata") or {}
    if isinstance(metadata, Mapping):
        resolved["metadata"] = {_TITLE: name, **metadata}
    return resolved


def _id_of(other: object, field: str, name: str, ids: Mapping[str, TaskId]) -> TaskId:
    if isinstance(other, str) and other in ids:
        return ids[other]
    if isinstance(other, str) and _is_id(other):
        return parse_task_id(other)
    close = get_close_matches(other, ids, n=1) if isinstance(other, str) else []
    raise InvalidTask(
        f"field {field} of task {name!r}: there is no task {abbreviate(other)} in the graph",
        remedy=f"Did you mean {close[0]!r}?" if close else "Name a task of the graph, or the id of one at the node",
    )
