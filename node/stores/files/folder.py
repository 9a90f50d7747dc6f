"""Where the files of tasks lie, and how they are written: whole or not at all, and on disk before anybody is told.

A file is written beside its place under a name that starts with a dot, made durable, and renamed; the folder is made
durable after that. A crash leaves the old file or the new one, and perhaps a draft, which is removed at the next start.
Nothing here overwrites or removes a file that it does not know to be a task's.

Synchronous; several threads may use one `TaskFolder`.
"""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

from node.checkpoints import CheckpointFailed, EngineErrorCode
from node.stores.files.document import Document, Malformed, decode
from protocol import (
    DEFAULT_PROJECT,
    ErrorCode,
    TaskId,
    TaskRecord,
    parse_reference,
    project_folder,
)

TASKS_FOLDER: Final = "tasks"
# A task and its result have 16 MiB each at the most, and a control character takes six bytes in JSON: what is larger
# than this was not written by a node, and would fill the memory of one.
MAX_FILE_BYTES: Final = 256 * 1024 * 1024

_PRIVATE_FOLDER = 0o700
_PRIVATE_FILE = 0o600
_SUFFIX = ".json"
_DRAFT = re.compile(r"\.task-.+\.json\.tmp")
_FILE_NAME = re.compile(
    r"task-(?P<project>.+)-(?P<id>[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})\.json"
)
_LEAVE_ALONE = "Mend it or restore it from a backup, or move it away; the node leaves it as it is"
# Names the files that are being written together; it starts with a dot, so it is taken for no project.
_TOGETHER = ".together.json"
_FOREIGN = "Move it away: only folders of projects, and the files of their tasks, belong here"


class Scan(NamedTuple):
    """What lies in a folder.

    Attributes:
        paths: the files that are named like those of tasks, sorted.
        foreign: why each other thing is none.
    """

    paths: list[Path]
    foreign: list[CheckpointFailed]


class TaskFolder:
    """The files of tasks below ``{folder}/tasks``. Making one touches nothing.

    Attributes:
        folder: the data folder.
        tasks: where the folders of projects are.
        lock: held by whoever looks at a file in order to replace it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tasks = folder / TASKS_FOLDER
        self.lock = threading.RLock()
        self._grown = True  # a process that was killed may have made a folder that is not on disk yet

    # --- names -------------------------------------------------------------------------------------------------------

    def path(self, project: str, task_id: TaskId) -> Path:
        """Return where the file of a task is; a project that is no safe name has its tasks in ``default``."""
        return self.tasks / project_folder(project) / f"task-{project}-{task_id}{_SUFFIX}"

    def path_named(self, name: str) -> Path:
        """Return where a task lies that is named by its UUID or its reference; a plain UUID is looked for.

        Raises:
            InvalidTask: the text names no task.
        """
        project, task_id = parse_reference(name)
        if project is not None:
            return self.path(project, task_id)
        usual = (folder / f"task-{folder.name}-{task_id}{_SUFFIX}" for folder in self._projects())
        unusual = (self.tasks / DEFAULT_PROJECT).glob(f"task-*-{task_id}{_SUFFIX}")
        return next(
            (path for path in chain(usual, unusual) if _is_one(path.exists)), self.path(DEFAULT_PROJECT, task_id)
        )

    def names(self, project: str) -> list[TaskId]:
        """Return the ids of the tasks of a project that have a file, sorted; none when its folder cannot be read."""
        try:
            entries = list((self.tasks / project_folder(project)).iterdir())
        except OSError:
            return []
        named = (_FILE_NAME.fullmatch(entry.name) for entry in entries)
        return sorted(TaskId(match["id"]) for match in named if match is not None and match["project"] == project)

    # --- reading -----------------------------------------------------------------------------------------------------

    def scan(self) -> Scan:
        """Look at the names below ``tasks``; what starts with a dot is nobody's business."""
        found = Scan([], [])
        for project in _entries(self.tasks, found):
            if not _is_one(project.is_dir):
                found.foreign.append(_foreign(project.path, "it is not the folder of a project"))
                continue
            for entry in _entries(Path(project.path), found):
                reason = _why_not_a_task(project.name, entry)
                if reason:
                    found.foreign.append(_foreign(entry.path, reason))
                else:
                    found.paths.append(Path(entry.path))
        found.paths.sort()
        return found

    def read(self, path: Path) -> bytes:
        """Return what is in a file.

        Raises:
            CheckpointFailed: it is not there, cannot be read, or is too large for a task.
        """
        try:
            return _read_regular(path)
        except FileNotFoundError:
            raise _missing(path) from None
        except OSError as error:
            raise CheckpointFailed(
                f"{path} cannot be read: {error.strerror}",
                kind=EngineErrorCode.UNKNOWN,
                path=path,
                remedy="Let this user read it",
            ) from error
        except Malformed as error:
            raise unusable(path, error) from error

    def read_document(self, path: Path) -> Document:
        """Return the record in a file, which is the task that its name says.

        Raises:
            CheckpointFailed: it cannot be read, or is corrupt, cut off, foreign or of another version.
        """
        data = self.read(path)
        try:
            document = decode(data)
        except Malformed as error:
            raise unusable(path, error) from error
        reference = document.record.task.reference
        if path.name != reference + _SUFFIX:
            raise unusable(path, Malformed(f"it holds the task {reference}, which its name does not say"))
        return document

    # --- writing -----------------------------------------------------------------------------------------------------

    def write(self, contents: Iterable[tuple[Path, bytes]]) -> None:
        """Write files, whole and on disk before this returns; on an error some may be new and others old.

        Raises:
            OSError: one could not be written; names it.
        """
        with self.lock:
            folders = set[Path]()
            for path, data in contents:
                if path.parent not in folders:
                    self._make_project(path.parent)
                    folders.add(path.parent)
                _replace(path, data)
            for folder in folders:
                _sync_folder(folder)

    def write_together(self, contents: Iterable[tuple[Path, bytes]], new: Iterable[Path]) -> None:
        """Write files as `write` does; after a crash on the way `undo` removes those of them that are new.

        Raises:
            OSError: one could not be written; names it. The same may be written again.
        """
        note = self.tasks / _TOGETHER
        _replace(note, json.dumps([[path.parent.name, path.name] for path in new]).encode())
        _sync_folder(self.tasks)
        self.write(contents)
        note.unlink()
        _sync_folder(self.tasks)

    def undo(self) -> None:
        """Remove what a writer that was killed has left of files that belong together.

        Raises:
            OSError: one could not be removed; names it.
        """
        note = self.tasks / _TOGETHER
        if not note.exists():
            return
        named = [self.tasks / project / name for project, name in json.loads(note.read_bytes())]
        self.remove(path for path in named if _FILE_NAME.fullmatch(path.name) and path.parent.parent == self.tasks)
        note.unlink()
        _sync_folder(self.tasks)

    def remove(self, paths: Iterable[Path]) -> None:
        """Remove files, and the folders of projects that are empty then; what is not there is no error.

        Raises:
            OSError: one could not be removed; names it.
        """
        with self.lock:
            folders = set[Path]()
            for path in paths:
                path.unlink(missing_ok=True)
                folders.add(path.parent)
            for folder in folders:
                with suppress(OSError):  # it is not empty, or was never there
                    folder.rmdir()

    def make(self) -> None:
        """Make the folder, and close it to others."""
        self.folder.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        self.tasks.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
        if stat.S_IMODE(self.tasks.stat().st_mode) != _PRIVATE_FOLDER:
            self.tasks.chmod(_PRIVATE_FOLDER)
        _sync_folder(self.folder)

    def remove_drafts(self) -> int:
        """Remove what writers that were killed have left, and return how many; nobody else may write now."""
        drafts = [draft for draft in self.tasks.glob("*/.task-*.tmp") if _DRAFT.fullmatch(draft.name)]
        for draft in drafts:
            draft.unlink(missing_ok=True)
        return len(drafts)

    def _projects(self) -> list[Path]:
        try:
            return [folder for folder in self.tasks.iterdir() if folder.is_dir()]
        except OSError:
            return []

    def _make_project(self, folder: Path) -> None:
        if not folder.is_dir():
            if not self.tasks.is_dir():
                self.make()
            folder.mkdir(mode=_PRIVATE_FOLDER)
            self._grown = True
        self._sync_tasks()

    def _sync_tasks(self) -> None:
        """Make new folders of projects durable; after an error it is still to be done."""
        if self._grown:
            _sync_folder(self.tasks)
            self._grown = False


def unusable(path: Path, error: Malformed) -> CheckpointFailed:
    """Return the error that says why a file is not that of a task, and that it stays as it is."""
    return CheckpointFailed(
        f"{path} cannot be used: {error}",
        kind=error.kind,
        path=path,
        remedy=_LEAVE_ALONE,
    )


def record_path(files: TaskFolder, record: TaskRecord) -> Path:
    """Return where the file of a record is."""
    return files.path(record.task.project, record.id)


def _entries(folder: Path, found: Scan) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except FileNotFoundError:
        return []
    except OSError as error:
        found.foreign.append(
            CheckpointFailed(
                f"the folder {folder} cannot be read: {error.strerror}",
                kind=EngineErrorCode.UNKNOWN,
                path=folder,
                remedy="Let this user read it, and start the node again",
            )
        )
        return []


def _why_not_a_task(project: str, entry: os.DirEntry[str]) -> str:
    named = _FILE_NAME.fullmatch(entry.name)
    if named is None:
        return "its name is not task-{project}-{uuid}.json"
    if project_folder(named["project"]) != project:
        return f"its name says project {named['project']}, and its folder {project}"
    return "" if _is_one(entry.is_file) else "it is not a file"


def _is_one(kind: Callable[[], bool]) -> bool:
    """Ask a path what it is; one that cannot be looked at, or leads round in a circle, is nothing."""
    try:
        return kind()
    except OSError:
        return False


def _foreign(path: str, reason: str) -> CheckpointFailed:
    return CheckpointFailed(
        f"{path} is left out: {reason}", kind=EngineErrorCode.VALIDATION, path=Path(path), remedy=_FOREIGN
    )


def _missing(path: Path) -> CheckpointFailed:
    return CheckpointFailed(
        f"there is no file {path}",
        kind=EngineErrorCode.UNKNOWN,
        path=path,
        code=ErrorCode.NOT_FOUND,
        remedy="Ask for a task that has one; list_tasks names those of a project",
    )


def _read_regular(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe would wait for a writer
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Malformed("it is not a file")
        if status.st_size > MAX_FILE_BYTES:
            raise Malformed(f"it is larger than any task ({MAX_FILE_BYTES:,} bytes)")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.tmp")
    try:
        _write_durably(draft, data)
        draft.rename(path)
    except OSError as error:
        with suppress(OSError):  # it was not made; and where the disk is full it must not stay
            draft.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error


def _write_durably(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE_FILE)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
