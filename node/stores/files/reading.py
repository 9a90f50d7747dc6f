"""Reads many files of tasks, and leaves out those that hold none."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from node.checkpoints import CheckpointFailed
from node.stores.files.document import Document, Malformed
from node.stores.files.folder import TaskFolder, unusable
from protocol import Fact, TaskId, TaskRecord


class Opened(NamedTuple):
    """What a file holds: a record, and the last facts of its task while that goes on."""

    record: TaskRecord
    facts: list[Fact]


def read_files(files: TaskFolder, paths: Iterable[Path], opened: dict[TaskId, Opened]) -> list[CheckpointFailed]:
    """Read files, add what they hold to `opened`, and return why the others hold no task.

    The facts of tasks that have ended are half the work, and are left for when somebody asks for them.
    """
    left_out: list[CheckpointFailed] = []
    for path in paths:
        try:
            document = files.read_document(path)
            facts = [] if document.record.terminal else facts_in(document, path)
        except CheckpointFailed as error:
            left_out.append(error)
            continue
        record = document.record
        if record.id in opened:
            twin = files.path(opened[record.id].record.task.project, record.id)
            left_out.append(unusable(path, Malformed(f"the task is in {twin} too")))
        else:
            opened[record.id] = Opened(record, facts)
    return left_out


def read_file(files: TaskFolder, path: Path) -> tuple[TaskRecord, list[Fact]]:
    """Return what a file holds.

    Raises:
        CheckpointFailed: it cannot be read, or is corrupt, cut off, foreign or of another version.
    """
    document = files.read_document(path)
    return document.record, facts_in(document, path)


def facts_in(document: Document, path: Path) -> list[Fact]:
    """Return the facts in the document of a path; raises `CheckpointFailed` when one of them is wrong."""
    try:
        return document.facts()
    except Malformed as error:
        raise unusable(path, error) from error
