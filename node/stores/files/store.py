"""A store of one JSON file for each task, for people who want to read, compare and copy what a node knows.

What is appended waits in line. One task takes as much of the line as makes a group, writes the files of its tasks in a
thread, and says that their changes are saved. A file always holds the newest state of its task at that moment, so
several changes of one task in a group cost one file.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple

import structlog
import trio

from node.background import open_background
from node.checkpoints import CheckpointFailed
from node.interfaces import Change, Committed, Store
from node.stores.files.checkpoints import FileCheckpoints
from node.stores.files.document import encode
from node.stores.files.folder import TaskFolder, record_path
from node.stores.files.hold import held
from node.stores.files.reading import Opened, read_file, read_files
from node.stores.files.saving import Saver
from protocol import ErrorCode, Fact, PeertaskError, TaskId, TaskRecord

log = structlog.get_logger(__name__)

# Each change writes all facts of its task again: at some 200 bytes each this many make a file of 50 KB, and a task
# that reports ten times a second, which is as often as a node lets it, keeps the last half minute.
MAX_FACTS_PER_TASK: Final = 256
# Files that are made durable before anybody is told: enough to share the syncing of folders, and with a disk that
# takes a millisecond for a file nobody waits much longer than for a file of his own.
MAX_GROUP: Final = 64
# Files read by one call in a thread: some milliseconds, so that a start can be cancelled.
READ_AT_ONCE: Final = 256
# As many are named one by one in the log; `FilesStore.left_out` has them all.
MAX_LOGGED_FILES: Final = 20


class _Known(NamedTuple):
    """What the store remembers of every task: the last seq that it took in, and the project, which names the file."""

    seq: int
    project: str


class _Step(NamedTuple):
    """Something in line: changes of a task that are to be saved, or none, when its file is to be removed."""

    task_id: TaskId
    project: str
    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class _Group:
    """Steps that are saved together, and the state of their tasks when the group was made.

    Attributes:
        steps: in the order of appending.
        written: the records and facts to write.
        removed: the projects and ids of the tasks whose files go.
        together: the files of new tasks that are saved all or none.
    """

    steps: list[_Step] = field(default_factory=list)
    written: dict[TaskId, tuple[TaskRecord, Sequence[Fact]]] = field(default_factory=dict)
    removed: set[tuple[str, TaskId]] = field(default_factory=set)
    together: list[Path] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.written) + len(self.removed)

    @property
    def changes(self) -> list[Change]:
        return [change for step in self.steps for change in step.changes]


class FilesStore(Store):
    """Keeps records and their last 256 facts in ``{folder}/tasks/{project}/task-{project}-{uuid}.json``.

    Making one touches nothing. What is not the file of a task is left alone and reported in `left_out`.

    Args:
        folder: the data folder; made when the store is opened, and closed to other users.
    """

    def __init__(self, folder: Path) -> None:
        self._files = TaskFolder(folder)
        self._saver = Saver(folder)
        self._committed: Committed | None = None
        self._known: dict[TaskId, _Known] = {}
        self._facts: dict[TaskId, list[Fact]] = {}  # of tasks that go on, or are not saved yet
        self._unsaved: dict[TaskId, TaskRecord] = {}
        self._line: deque[tuple[_Step, ...]] = deque()
        self._opened: list[TaskRecord] | None = None
        self._left_out: Mapping[Path, CheckpointFailed] = {}
        self._wake = trio.Event()
        self._closing = False

    @property
    def left_out(self) -> Sequence[CheckpointFailed]:
        """What was found when the store was opened and is no task: each with its path, why, and what to do."""
        return tuple(self._left_out.values())

    @property
    def checkpoints(self) -> FileCheckpoints:
        """The checkpoints of a node with this store: its own files, which are always up to date."""
        return FileCheckpoints(self._files)

    @property
    def failure(self) -> PeertaskError | None:
        """Why nothing can be saved at the moment; see `Store.failure`."""
        return self._saver.failure

    @asynccontextmanager
    async def running(self, committed: Committed) -> AsyncIterator[None]:
        """Be open for the length of the context; see `Store.running`.

        Every file is read when it begins. When saving fails at the end, there are five more seconds for it; then what
        is not saved is logged and lost.

        Raises:
            PeertaskError: code STORE_FAILED, when the folder cannot be written, or another store is open there; names
                it, and the process of the other.
        """
        with ExitStack() as stack:
            await self._occupy(stack)
            await self._open(committed)
            async with open_background() as nursery:
                nursery.start_soon(self._save_all)
                try:
                    yield
                finally:
                    self._close()

    def append(self, changes: Sequence[Change]) -> None:
        """Take changes of one task in; see `Store.append`.

        Raises:
            PeertaskError: code CONFLICT, when another `seq` is next; STORE_FAILED, when the store is not open, or when
                there is something else in the place of the file of a new task.
        """
        if self._committed is None:
            raise PeertaskError(f"the store in {self._files.folder} is not open", code=ErrorCode.STORE_FAILED)
        self._check(changes)
        self._put_in_line(self._take(changes))

    def append_new(self, changes: Sequence[Change]) -> None:
        """Take the first changes of several tasks in; raises as `append` does.

        While their files are written, a note beside them says which they are: after a crash in between, they are
        removed when the store is opened again.
        """
        if self._committed is None:
            raise PeertaskError(f"the store in {self._files.folder} is not open", code=ErrorCode.STORE_FAILED)
        for change in changes:
            self._check((change,))
        self._put_in_line(*[self._take((change,)) for change in changes])

    def _check(self, changes: Sequence[Change]) -> None:
        record = changes[-1].record
        known = self._known.get(record.id)
        if record.seq != len(changes) + (0 if known is None else known.seq):
            raise _conflict(changes[0].record, known)
        if known is None and self._left_out:
            self._check_place(record)

    def _take(self, changes: Sequence[Change]) -> _Step:
        record = changes[-1].record
        self._opened = None
        self._known[record.id] = _Known(record.seq, sys.intern(record.task.project))
        facts = self._facts.setdefault(record.id, [])
        facts.extend(change.fact for change in changes)
        del facts[:-MAX_FACTS_PER_TASK]
        self._unsaved[record.id] = record
        return _Step(record.id, record.task.project, changes)

    async def load(self) -> AsyncGenerator[TaskRecord]:
        """Yield every record that is kept, the oldest `created_at` first."""
        records = await self._records()
        for record in sorted(records, key=lambda record: record.created_at):
            yield record

    async def facts(self, task_id: TaskId, after_seq: int = 0) -> AsyncGenerator[Fact]:
        """Yield the last 256 facts of a task whose number is greater than `after_seq`.

        Raises:
            PeertaskError: code STORE_FAILED or NOT_FOUND, when the file of the task has become unreadable.
        """
        last, kept = await self._kept_facts(task_id)
        for fact in kept[max(0, after_seq - last + len(kept)) :]:
            yield fact

    def forget(self, task_ids: Iterable[TaskId]) -> None:
        """Drop the records and facts of these tasks, if they are there; their files are removed in their turn."""
        for task_id in task_ids:
            known = self._known.pop(task_id, None)
            if known is not None:
                self._opened = None
                self._facts.pop(task_id, None)
                self._unsaved.pop(task_id, None)
                self._put_in_line(_Step(task_id, known.project, ()))

    # --- opening and closing -----------------------------------------------------------------------------------------

    async def _occupy(self, stack: ExitStack) -> None:
        if self._committed is not None:
            raise PeertaskError(
                f"the store in {self._files.folder} is open already",
                code=ErrorCode.STORE_FAILED,
                remedy="Give each node a store of its own",
            )
        try:
            await trio.to_thread.run_sync(self._files.make)
            stack.enter_context(held(self._files.folder))
            await trio.to_thread.run_sync(self._files.remove_drafts)
            await trio.to_thread.run_sync(self._files.undo)
        except OSError as error:
            raise PeertaskError(
                f"the tasks in {self._files.folder} cannot be opened: {error.strerror} ({error.filename})",
                code=ErrorCode.STORE_FAILED,
                remedy="Give this user a data folder that it may write",
            ) from error

    async def _open(self, committed: Committed) -> None:
        opened, left_out = await self._read_all()
        self._saver = Saver(self._files.folder)
        self._closing = False
        self._known = {one.record.id: _Known(one.record.seq, sys.intern(one.record.task.project)) for one in opened}
        self._facts = {one.record.id: one.facts for one in opened if not one.record.terminal}
        self._opened = [one.record for one in opened]
        self._left_out = {error.path: error for error in left_out}
        self._committed = committed
        _log_opening(self._files.folder, len(opened), left_out)

    def _close(self) -> None:
        self._closing = True
        self._saver.close()
        self._wake.set()

    def _forget_all(self) -> None:
        """Keep nothing in memory: the files may change while the store is not open."""
        self._committed = self._opened = None
        self._known, self._facts, self._unsaved = {}, {}, {}

    def _give_up(self, group: _Group) -> None:
        tasks = {step.task_id for step in (*group.steps, *chain.from_iterable(self._line)) if step.changes}
        self._line.clear()
        log.error("tasks are not saved", tasks=len(tasks), task_ids=sorted(tasks)[:MAX_LOGGED_FILES])

    # --- saving ------------------------------------------------------------------------------------------------------

    def _check_place(self, record: TaskRecord) -> None:
        path = record_path(self._files, record)
        error = self._left_out.get(path) or self._left_out.get(path.parent)
        if error is not None:
            raise PeertaskError(
                f"task {record.id} cannot be kept: {error.message}",
                code=ErrorCode.STORE_FAILED,
                remedy=f"{error.remedy}. Then start the node again",
            )

    def _put_in_line(self, *steps: _Step) -> None:
        self._line.append(steps)
        self._wake.set()

    async def _save_all(self) -> None:
        """Save what is in line, whenever there is something, until the store closes."""
        with trio.CancelScope(shield=True):
            try:
                while await self._save_line() and not self._closing:
                    self._wake = trio.Event()
                    await self._wake.wait()
            finally:
                self._forget_all()

    async def _save_line(self) -> bool:
        """Save until the line is empty; return False when patience is at its end."""
        while self._line:
            if not await self._save_group():
                return False
        return True

    async def _save_group(self) -> bool:
        group = self._next_group()
        if not await self._saver.save(partial(_write, self._files, group)):
            self._give_up(group)
            return False
        for record, _ in group.written.values():
            self._note_saved(record)
        changes = group.changes
        if changes and self._committed is not None:
            self._committed(changes)
        return True

    def _note_saved(self, record: TaskRecord) -> None:
        if self._unsaved.get(record.id) is record:
            del self._unsaved[record.id]
            if record.terminal:
                del self._facts[record.id]

    def _next_group(self) -> _Group:
        group = _Group()
        while self._line and group.size < MAX_GROUP:
            steps = self._line.popleft()
            for step in steps:
                self._add(step, group)
            if len(steps) > 1:
                group.together.extend(self._files.path(step.project, step.task_id) for step in steps)
        return group

    def _add(self, step: _Step, group: _Group) -> None:
        group.steps.append(step)
        known = self._known.get(step.task_id)
        if known is None or known.project != step.project:
            group.removed.add((step.project, step.task_id))
        elif (record := self._unsaved.get(step.task_id)) is not None:
            group.written[step.task_id] = (record, tuple(self._facts[step.task_id]))

    def _path_of(self, task_id: TaskId) -> Path | None:
        known = self._known.get(task_id)
        return None if known is None else self._files.path(known.project, task_id)

    # --- reading -----------------------------------------------------------------------------------------------------

    async def _records(self) -> Iterable[TaskRecord]:
        if self._opened is not None:
            records, self._opened = self._opened, None
            return records
        unsaved = self._unsaved.copy()
        opened, _ = await self._read_all()
        kept = {one.record.id: one.record for one in opened}
        for record in (*unsaved.values(), *self._unsaved.values()):
            if record.id not in kept or kept[record.id].seq < record.seq:
                kept[record.id] = record
        if self._committed is None:
            return kept.values()
        return [record for task_id, record in kept.items() if task_id in self._known]

    async def _read_all(self) -> tuple[list[Opened], list[CheckpointFailed]]:
        paths, left_out = await trio.to_thread.run_sync(self._files.scan)
        opened: dict[TaskId, Opened] = {}
        for some in _parts(paths, READ_AT_ONCE):
            unusable = await trio.to_thread.run_sync(read_files, self._files, some, opened)
            left_out.extend(unusable)
        return list(opened.values()), left_out

    async def _kept_facts(self, task_id: TaskId) -> tuple[int, list[Fact]]:
        """Return the number of the last fact of a task, and the facts that are kept."""
        if task_id in self._facts:
            return self._known[task_id].seq, self._facts[task_id]
        path = self._path_of(task_id)
        if path is None and self._committed is None:
            path = await trio.to_thread.run_sync(self._files.path_named, task_id)
            path = path if path.exists() else None
        if path is None:
            return 0, []
        record, facts = await trio.to_thread.run_sync(read_file, self._files, path)
        return record.seq, facts


def _write(files: TaskFolder, group: _Group) -> None:
    """Bring the files of a group up to date; in this order, because a file may be both old and new."""
    files.remove(files.path(project, task_id) for project, task_id in group.removed)
    contents = ((record_path(files, record), encode(record, facts)) for record, facts in group.written.values())
    if group.together:
        files.write_together(contents, group.together)
    else:
        files.write(contents)


def _parts(paths: Sequence[Path], size: int) -> Iterator[Sequence[Path]]:
    return (paths[start : start + size] for start in range(0, len(paths), size))


def _log_opening(folder: Path, tasks: int, left_out: Sequence[CheckpointFailed]) -> None:
    for error in left_out[:MAX_LOGGED_FILES]:
        log.warning("left out of the store", path=str(error.path), reason=error.message, remedy=error.remedy)
    log.info("files store is open", folder=str(folder), tasks=tasks, left_out=len(left_out))


def _conflict(record: TaskRecord, known: _Known | None) -> PeertaskError:
    last = "holds no record of it" if known is None else f"holds number {known.seq} of it"
    return PeertaskError(
        f"task {record.id}: fact number {record.seq} cannot be kept, because the store {last}",
        code=ErrorCode.CONFLICT,
    )
