"""Single files of tasks, saved and loaded by name: what the checkpoint functions of a manager do to the disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from node.checkpoints import Checkpoint, CheckpointFailed, CheckpointFolder, EngineErrorCode, TaskMetadata
from node.stores.files.document import Malformed, encode, read_metadata
from node.stores.files.folder import TaskFolder, record_path, unusable
from node.stores.files.reading import read_file
from protocol import (
    DEFAULT_PROJECT,
    ErrorCode,
    Fact,
    InvalidTask,
    TaskId,
    TaskRecord,
    extract_project_id,
    parse_reference,
)


class FileCheckpoints(CheckpointFolder):
    """Checkpoints in the files of a `TaskFolder`; a `FilesStore` has the same files.

    Args:
        files: where they are.
    """

    def __init__(self, files: TaskFolder) -> None:
        self._files = files

    def path_of(self, task_id: str) -> Path:
        """Return where the file of a task lies, of a plain UUID in ``default``; a folder, if the text names no task."""
        try:
            project, uuid = parse_reference(task_id)
        except InvalidTask:
            return self._files.tasks / extract_project_id(task_id)
        return self._files.path(project or DEFAULT_PROJECT, uuid)

    def save(self, record: TaskRecord, facts: Sequence[Fact]) -> Path:
        """Write the file of a task, unless a newer one is there; see `CheckpointFolder.save`."""
        path = record_path(self._files, record)
        with self._files.lock:
            if self._is_newer(path, record):
                return path
            try:
                self._files.make()
                self._files.write([(path, encode(record, facts))])
            except OSError as error:
                raise CheckpointFailed(
                    f"{path} cannot be written: {error.strerror}",
                    kind=EngineErrorCode.UNKNOWN,
                    path=path,
                    remedy="Make room, or let this user write there, and save it again",
                ) from error
        return path

    def load(self, task_id: str) -> Checkpoint:
        """Read and check the file of a task; see `CheckpointFolder.load`."""
        return Checkpoint(*read_file(self._files, self._files.path_named(task_id)))

    def list_tasks(self, project: str) -> list[TaskId]:
        """Return the ids of the tasks of a project that have a file, sorted."""
        return self._files.names(project)

    def metadata(self, task_id: str) -> TaskMetadata:
        """Read what stands in the file of a task about its state; see `CheckpointFolder.metadata`."""
        path = self._files.path_named(task_id)
        try:
            return read_metadata(self._files.read(path))
        except Malformed as error:
            raise unusable(path, error) from error

    def _is_newer(self, path: Path, record: TaskRecord) -> bool:
        """Whether what is there knows as much as `record`; raises when it is not the file of this task."""
        try:
            known = self._files.read_document(path).record
        except CheckpointFailed as error:
            if error.code is ErrorCode.NOT_FOUND:
                return False
            raise
        return known.seq >= record.seq
