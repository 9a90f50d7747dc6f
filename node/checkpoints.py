"""Checkpoints: a task in a file that a person can read, saved and put back by name.

These functions return a value and None, or None and an `EngineError`, and raise nothing for a file or a task that is
not as it should be: whoever restores a hundred tasks after a crash wants to hear of each, and not to stop at the first.
Everything else in a node raises.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol, TypedDict

import trio

from node.interfaces import Change, Lagged
from protocol import ErrorCode, Fact, PeertaskError, Task, TaskId, TaskRecord, extract_project_id, parse_reference


class EngineErrorCode(StrEnum):
    """What kind of trouble a checkpoint has."""

    JSON = "JSON"
    """The file is not valid JSON: it is corrupt, or cut off."""
    VALIDATION = "VALIDATION"
    """The file is valid JSON, and not a task; or the text that should name a task does not."""
    UNKNOWN = "UNKNOWN"
    """Anything else: there is no such task or file, or the file cannot be read or written."""


@dataclass(frozen=True, slots=True)
class EngineError:
    """Why a checkpoint function has nothing to return.

    Attributes:
        code: what kind of trouble it is.
        message: what failed, where, why, and what to do next, for people.
        details: ``path`` of the file, and ``error``, the `ErrorCode` that says more than `code`.
    """

    code: EngineErrorCode
    message: str
    details: Mapping[str, str] = field(default_factory=dict)


class CheckpointFailed(PeertaskError):
    """A file of a task cannot be used.

    Attributes:
        kind: what kind of trouble it is.
        path: the file.
    """

    default_code = ErrorCode.STORE_FAILED

    def __init__(
        self, message: str, *, kind: EngineErrorCode, path: Path, remedy: str = "", code: ErrorCode | None = None
    ) -> None:
        super().__init__(message, code=code, remedy=remedy)
        self.kind = kind
        self.path = path


class Checkpoint(NamedTuple):
    """What a file holds: a record, and the last facts of its task, without a gap, as far as they were kept."""

    record: TaskRecord
    facts: Sequence[Fact]


class TaskMetadata(TypedDict):
    """What a list of checkpoints shows of each; times are milliseconds since the epoch."""

    task_id: str
    status: str
    pipeline_id: str | None
    created_at: int
    updated_at: int


class CheckpointFolder(ABC):
    """Where checkpoints lie. Plain synchronous code, safe to call from any thread.

    A task is named by its UUID, or as ``task-{project}-{uuid}``.
    """

    @abstractmethod
    def path_of(self, task_id: str) -> Path:
        """Return where the file of a task lies, or would lie; whatever the text is, the path is within the folder."""

    @abstractmethod
    def save(self, record: TaskRecord, facts: Sequence[Fact]) -> Path:
        """Write the file of a task, whole and on disk before this returns, unless a newer one is there.

        Raises:
            CheckpointFailed: it cannot be written, or what is there is not the file of this task.
        """

    @abstractmethod
    def load(self, task_id: str) -> Checkpoint:
        """Read and check the file of a task.

        Raises:
            CheckpointFailed: there is none, or it is not as it should be.
            InvalidTask: the text names no task.
        """

    @abstractmethod
    def list_tasks(self, project: str) -> list[TaskId]:
        """Return the ids of the tasks of a project that have a file, sorted. Changes nothing, and reads no file."""

    @abstractmethod
    def metadata(self, task_id: str) -> TaskMetadata:
        """Read what stands in the file of a task about its state, without building the task.

        Raises:
            CheckpointFailed: as `load`.
            InvalidTask: the text names no task.
        """


class NoCheckpoints(CheckpointFolder):
    """Stands where a node has no folder."""

    def path_of(self, task_id: str) -> Path:
        """Return the folder that the file would have."""
        return Path("tasks", extract_project_id(task_id))

    def save(self, record: TaskRecord, facts: Sequence[Fact]) -> Path:  # noqa: ARG002 - they go nowhere
        """Say that there is no folder."""
        raise _no_folder(self.path_of(record.id))

    def load(self, task_id: str) -> Checkpoint:
        """Say that there is no folder."""
        raise _no_folder(self.path_of(task_id))

    def list_tasks(self, project: str) -> list[TaskId]:  # noqa: ARG002 - no project has any
        """Return nothing."""
        return []

    def metadata(self, task_id: str) -> TaskMetadata:
        """Say that there is no folder."""
        raise _no_folder(self.path_of(task_id))


class TaskKeeper(Protocol):
    """What checkpoints need of the manager of tasks."""

    async def history(self, task_id: TaskId) -> Checkpoint:
        """Return the record of a task as it is saved, and its facts; raises `TaskNotFound`."""

    def restore(self, checkpoint: Checkpoint) -> TaskRecord:
        """Take a task in with what has happened to it, unless it is known; return its record."""

    def watch(
        self, task_id: TaskId | None = None, after_seq: int = 0
    ) -> AbstractAsyncContextManager[AsyncIterator[Change | Lagged]]:
        """Watch the facts of a task; see `TaskService.watch`."""


Saved = tuple[Path, None] | tuple[None, EngineError]
Loaded = tuple[Task, None] | tuple[None, EngineError]
Described = tuple[TaskMetadata, None] | tuple[None, EngineError]


class Checkpoints:
    """The checkpoint functions of a manager; files are read and written in a thread, so nothing else waits for them.

    `TaskManager` has the same functions under the same names.

    Args:
        tasks: the manager.
        folder: where the files are.
    """

    def __init__(self, tasks: TaskKeeper, folder: CheckpointFolder) -> None:
        self._tasks = tasks
        self._folder = folder

    async def save_checkpoint(self, task_id: str) -> Saved:
        """Write what is saved of a task to its file, and return the path.

        Args:
            task_id: its UUID, or ``task-{project}-{uuid}``.
        """
        try:
            record, facts = await self._tasks.history(parse_reference(task_id).task_id)
            return await trio.to_thread.run_sync(self._folder.save, record, facts), None
        except PeertaskError as error:
            return None, self._explain(task_id, error)

    async def load_checkpoint(self, task_id: str) -> Loaded:
        """Read the file of a task, put the task back into the map unless it is there, and return it.

        A task that had not ended goes on: what was under way when the file was written is planned again. A task that
        had ended is back with its result. Returns when the task is saved again.

        Args:
            task_id: its UUID, or ``task-{project}-{uuid}``.
        """
        name = task_id
        try:
            checkpoint = await trio.to_thread.run_sync(self._folder.load, task_id)
            name = checkpoint.record.task.reference
            await self._saved(self._tasks.restore(checkpoint))
        except PeertaskError as error:
            return None, self._explain(name, error)
        return checkpoint.record.task, None

    async def list_tasks(self, project: str) -> list[TaskId]:
        """Return the ids of the tasks of a project that have a file, sorted; none when there is no such folder."""
        return await trio.to_thread.run_sync(self._folder.list_tasks, project)

    async def get_task_metadata(self, task_id: str) -> Described:
        """Read what stands in the file of a task about its state; neither builds the task nor puts it back.

        Args:
            task_id: its UUID, or ``task-{project}-{uuid}``.
        """
        try:
            return await trio.to_thread.run_sync(self._folder.metadata, task_id), None
        except PeertaskError as error:
            return None, self._explain(task_id, error)

    async def _saved(self, record: TaskRecord) -> None:
        async with self._tasks.watch(record.id, after_seq=record.seq - 1) as changes:
            async for change in changes:
                if isinstance(change, Change) and change.record.seq >= record.seq:
                    return

    def _explain(self, task_id: str, error: PeertaskError) -> EngineError:
        path = error.path if isinstance(error, CheckpointFailed) else self._folder.path_of(task_id)
        return EngineError(_kind_of(error), str(error), {"path": str(path), "error": error.code.value})


class CheckpointedTasks:
    """The checkpoint functions by their names, for the class that holds `Checkpoints`.

    Attributes:
        checkpoints: what does the work.
    """

    checkpoints: Checkpoints

    async def save_checkpoint(self, task_id: str) -> Saved:
        """Write what is saved of a task to its file; see `Checkpoints.save_checkpoint`."""
        return await self.checkpoints.save_checkpoint(task_id)

    async def load_checkpoint(self, task_id: str) -> Loaded:
        """Read the file of a task and put the task back into the map; see `Checkpoints.load_checkpoint`."""
        return await self.checkpoints.load_checkpoint(task_id)

    async def get_task_metadata(self, task_id: str) -> Described:
        """Read what stands in the file of a task about its state; see `Checkpoints.get_task_metadata`."""
        return await self.checkpoints.get_task_metadata(task_id)


_NOT_VALID = frozenset({ErrorCode.INVALID_TASK, ErrorCode.ILLEGAL_TRANSITION, ErrorCode.STALE_ATTEMPT})


def _kind_of(error: PeertaskError) -> EngineErrorCode:
    if isinstance(error, CheckpointFailed):
        return error.kind
    return EngineErrorCode.VALIDATION if error.code in _NOT_VALID else EngineErrorCode.UNKNOWN


def _no_folder(path: Path) -> CheckpointFailed:
    return CheckpointFailed(
        f"{path} can be neither read nor written, because this node has no data folder",
        kind=EngineErrorCode.UNKNOWN,
        path=path,
        remedy="Give the node a data folder",
    )
