"""The readable name of a task, ``task-{project}-{uuid}``, taken apart again, whatever text comes in.

The name stands in paths, so what is taken from it is safe there: a project that some file system would take for another
path, another device or another name counts as ``default``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from protocol.errors import InvalidTask, abbreviate
from protocol.task import MAX_NAME_CHARS, NAME_PATTERN, TaskId, parse_task_id

DEFAULT_PROJECT = "default"

_REFERENCE = re.compile(
    r"task-(?P<project>.+)-(?P<id>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})", re.IGNORECASE
)
_NAME = re.compile(NAME_PATTERN)
# Windows opens a device under these names, whatever follows a dot, in upper and lower case.
_DEVICES = frozenset(
    {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(10))}
)


def extract_project_id(task_id: str) -> str:
    """Return the project in a reference ``task-{project}-{uuid}``, as a name that is safe for a folder.

    A project may have dashes. Any other text, and a project that is no safe name, gives ``default``.
    """
    reference = _REFERENCE.fullmatch(task_id)
    return DEFAULT_PROJECT if reference is None else project_folder(reference["project"])


def project_folder(project: str) -> str:
    """Return the name of the folder for the tasks of a project: its own where that is safe, else ``default``."""
    return project if is_safe_folder_name(project) else DEFAULT_PROJECT


def is_safe_folder_name(name: str) -> bool:
    """Whether a text is a name of a project that every file system takes for itself.

    No separators, no control characters, no dot at the start or the end (Windows drops that one), no device of
    Windows, and not too long.
    """
    return _is_name(name) and not name.endswith(".") and name.partition(".")[0].upper() not in _DEVICES


class Reference(NamedTuple):
    """A task as a text names it.

    Attributes:
        project: None when the text is a plain UUID; else a name as `Task.project` has it.
        task_id: the id of the task.
    """

    project: str | None
    task_id: TaskId


def parse_reference(text: str) -> Reference:
    """Return which task a reference ``task-{project}-{uuid}`` or a plain UUID names.

    Raises:
        InvalidTask: it is neither, or its project could be the project of no task.
    """
    stripped = text.strip()
    named = _REFERENCE.fullmatch(stripped)
    if named is not None and not _is_name(named["project"]):
        raise _names_no_task(text)
    try:
        return Reference(named and named["project"], parse_task_id(named["id"] if named else stripped))
    except InvalidTask:
        raise _names_no_task(text) from None


def _is_name(text: str) -> bool:
    return len(text) <= MAX_NAME_CHARS and _NAME.fullmatch(text) is not None


def _names_no_task(text: str) -> InvalidTask:
    return InvalidTask(
        f"{abbreviate(text)} names no task",
        remedy="Use its UUID, or task-{project}-{uuid}, the name of its file without .json",
    )
