"""Looks after the store of a node that does not run: counts, checks, carries over, tidies."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

import click
import trio

from node.archive import ArchivedTask, read_line, write_line
from node.cli.exit_codes import ExitCode
from node.cli.settings import folder_of
from node.cli.terminal import console, echo_json
from node.config import NodeConfig
from node.gateways.http.folder import occupied
from node.history import retell
from node.interfaces import Change, Store
from node.net.identity import load_or_create_identity, peer_id_of
from node.retention import Capacity, FinishedTasks
from node.storage import Storage, storage_of
from protocol import MAX_PAYLOAD_BYTES, ErrorCode, Fact, PeerId, PeertaskError, TaskId, TaskRecord

if TYPE_CHECKING:
    from rich.progress import Progress

STANDARD: Final = Path("-")
"""Stands for standard input or output where a file is named."""
# Often enough for the eye, seldom enough to cost nothing.
_TASKS_A_DRAW: Final = 200
# What is appended and not saved yet is held in memory.
_IMPORT_WINDOW: Final = 1_000
# Longer than any commit; a store that saves nothing for so long has refused what waits.
_STALLED_S: Final = 15.0
# A task and its result at their largest, twice, with every character escaped.
_MAX_LINE_CHARS: Final = 12 * MAX_PAYLOAD_BYTES
_MS_PER_HOUR: Final = 3_600_000


class _Kept(NamedTuple):
    """A store that is open, and where it is."""

    store: Store
    storage: Storage


class Storekeeper:
    """What can be done with the store of a data folder.

    Args:
        settings: those of the node.
        as_json: whether results are told as JSON.
    """

    def __init__(self, settings: NodeConfig, *, as_json: bool) -> None:
        self._settings = settings
        self._as_json = as_json
        self._folder = folder_of(settings)

    async def info(self) -> ExitCode:
        """Count what is kept."""
        async with self._opened() as kept:
            records = [record async for record in _records(kept.store)]
        statuses = Counter(record.status.value for record in records)
        updates = [record.updated_at for record in records]
        self._tell(
            kept.storage,
            [
                *(f"{status:<10} {count:>9,}" for status, count in sorted(statuses.items())),
                f"all        {len(records):>9,}",
            ],
            tasks=dict(sorted(statuses.items())),
            oldest=min(updates, default=None),
            newest=max(updates, default=None),
            bytes=None if self._settings.store == "redis" else _size(Path(kept.storage.place)),
        )
        return ExitCode.OK

    async def check(self) -> ExitCode:
        """Read everything, and say what is wrong; a SQLite file that is damaged is left as it is."""
        storage = self._storage()
        self._require_place(storage)
        faults, tasks = await self._faults_of_file(storage), 0
        if not faults:
            async with self._opened() as kept:
                tasks = await self._check_tasks(kept.store, faults)
                faults += [str(error) for error in getattr(kept.store, "left_out", ())]
        self._tell(storage, faults or [f"{tasks:,} tasks, and nothing is wrong"], tasks=tasks, faults=faults)
        return ExitCode.FAILED if faults else ExitCode.OK

    async def _faults_of_file(self, storage: Storage) -> list[str]:
        if self._settings.store != "sqlite":
            return []
        from node.stores.sqlite import find_faults

        with self._exclusive():
            try:
                return await trio.to_thread.run_sync(find_faults, Path(storage.place))
            except PeertaskError as error:
                return [str(error)]

    async def _check_tasks(self, store: Store, faults: list[str]) -> int:
        tasks = 0
        with self._progress("check") as advance:
            async for record in _records(store):
                tasks += 1
                advance()
                faults += await _faults_of(store, record)
        return tasks

    async def migrate(self, *, dry_run: bool) -> ExitCode:
        """Bring a SQLite file to the newest schema, or say what that would do."""
        storage = self._storage()
        if self._settings.store != "sqlite":
            raise PeertaskError(
                f"the {self._settings.store} store has no schema to migrate", code=ErrorCode.INVALID_CONFIG
            )
        self._require_place(storage)
        from node.stores.sqlite import open_connection, planned_migrations

        path = Path(storage.place)
        with self._exclusive():
            names = [f"{one.number:04}_{one.name}" for one in planned_migrations(path)]
            if names and not dry_run:
                await trio.to_thread.run_sync(lambda: open_connection(path).close())
        done = "would be applied" if dry_run else "applied"
        lines = [f"{name} {done}" for name in names] or ["the file has the newest schema"]
        self._tell(storage, lines, migrations=names, applied=bool(names) and not dry_run)
        return ExitCode.OK

    async def forget_finished(self, *, older_than_h: float | None, keep: int | None) -> ExitCode:
        """Forget finished tasks by age and number, the oldest first, and give their room back."""
        hours = self._settings.retention_hours if older_than_h is None else older_than_h
        finished = FinishedTasks(
            Capacity(
                finished_records=self._settings.retention_records if keep is None else keep,
                finished_bytes=sys.maxsize,
                finished_ms=round(hours * _MS_PER_HOUR),
            )
        )
        async with self._opened() as kept:
            records = [record async for record in _records(kept.store)]
            for record in sorted((one for one in records if one.terminal), key=lambda one: one.updated_at):
                finished.add(record)
            gone = [*finished.expired(time.time_ns() // 1_000_000), *finished.surplus()]
            kept.store.forget(gone)
        await self._compact(kept.storage)
        left = len(records) - len(gone)
        lines = [f"{len(gone):,} finished tasks forgotten, {left:,} tasks left"]
        self._tell(kept.storage, lines, forgotten=len(gone), tasks=left)
        return ExitCode.OK

    async def _compact(self, storage: Storage) -> None:
        if self._settings.store == "sqlite":
            from node.stores.sqlite import compact

            with self._exclusive():
                await trio.to_thread.run_sync(compact, Path(storage.place))

    async def export_to(self, file: Path) -> ExitCode:
        """Write a line for each task, the oldest first."""
        tasks = 0
        async with self._opened() as kept:
            with _written(file) as out, self._progress("export") as advance:
                async for record in _records(kept.store):
                    facts = await _facts(kept.store, record.id)
                    await trio.to_thread.run_sync(out.write, write_line(record, facts) + "\n")
                    tasks += 1
                    advance()
        if file != STANDARD:
            self._tell(kept.storage, [f"{tasks:,} tasks exported to {file}"], tasks=tasks)
        return ExitCode.OK

    async def import_from(self, file: Path) -> ExitCode:
        """Take the tasks of an export in; those that are there already are left as they are."""
        saved, new, known = _Saved(), 0, 0
        async with self._opened(saved, create=True) as kept:
            ids = {record.id async for record in _records(kept.store)}
            with _lines(file) as lines, self._progress("import") as advance:
                while lot := await trio.to_thread.run_sync(lines.next_lot):
                    for one in lot:
                        advance()
                        if one.record.id in ids:
                            known += 1
                            continue
                        ids.add(one.record.id)
                        kept.store.append(one.changes())
                        new += 1
                        await saved.wait_for_room(kept.store, new)
            await saved.wait_for_all(kept.store, new)
        told = [f"{new:,} tasks imported", *([f"{known:,} were there already"] if known else [])]
        self._tell(kept.storage, told, tasks=new, known=known)
        return ExitCode.OK

    # --- around them -------------------------------------------------------------------------------------------------

    def _storage(self, *, create: bool = False) -> Storage:
        if not create and not self._folder.is_dir():
            raise PeertaskError(
                f"there is no data folder {self._folder}", code=ErrorCode.INVALID_CONFIG, remedy="Name it with --data"
            )
        return storage_of(self._settings, PeerId(peer_id_of(load_or_create_identity(self._folder))))

    @asynccontextmanager
    async def _opened(self, saved: _Saved | None = None, *, create: bool = False) -> AsyncIterator[_Kept]:
        storage = self._storage(create=create)
        if not create:
            self._require_place(storage)
        with self._exclusive():
            await self._refuse_damaged(storage)
            async with storage.store.running(saved or _Saved()):
                yield _Kept(storage.store, storage)

    async def _refuse_damaged(self, storage: Storage) -> None:
        """A node sets a damaged file aside when it starts; looking after it must not."""
        path = trio.Path(storage.place)
        if self._settings.store != "sqlite" or not await path.exists():
            return
        from node.stores.sqlite import find_faults

        faults = await trio.to_thread.run_sync(find_faults, Path(storage.place))
        if faults:
            raise PeertaskError(
                f"the SQLite store {storage.place} is damaged: {faults[0]}",
                code=ErrorCode.STORE_FAILED,
                remedy="`peertask store check` tells all; a node that starts sets it aside, and goes on with the rest",
            )

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with occupied(self._folder):
            yield

    def _require_place(self, storage: Storage) -> None:
        if self._settings.store != "redis" and not Path(storage.place).exists():
            raise PeertaskError(
                f"there is no {self._settings.store} store at {storage.place}",
                code=ErrorCode.INVALID_CONFIG,
                remedy="Name the data folder with --data, and the kind of store with --store",
            )

    def _tell(self, storage: Storage, lines: Sequence[str], **facts: Any) -> None:
        if self._as_json:
            echo_json({"store": self._settings.store, "place": storage.place, **facts})
        else:
            click.echo("\n".join([f"{self._settings.store} store at {storage.place}", *lines]))

    @contextmanager
    def _progress(self, what: str, total: int | None = None) -> Iterator[_Advance]:
        bar = _bar() if sys.stderr.isatty() else None
        with bar or nullcontext():
            advance = _Advance(bar, what, total)
            yield advance
            advance.draw()


class _Saved:
    """Counts the tasks that a store has saved, so that an import does not run ahead of the disk."""

    def __init__(self) -> None:
        self._tasks: set[TaskId] = set()
        self._changed = trio.Event()

    def __call__(self, changes: Sequence[Change]) -> None:
        self._tasks.update(change.record.id for change in changes)
        self._changed.set()
        self._changed = trio.Event()

    async def wait_for_room(self, store: Store, asked: int) -> None:
        """Return when few tasks wait to be saved; raises as `wait_for_all` does."""
        await self._wait(store, asked - _IMPORT_WINDOW)

    async def wait_for_all(self, store: Store, asked: int) -> None:
        """Return when so many tasks are saved.

        Raises:
            PeertaskError: code STORE_FAILED, when the store cannot save, or saves nothing more.
        """
        await self._wait(store, asked)

    async def _wait(self, store: Store, wanted: int) -> None:
        while len(self._tasks) < wanted:
            if store.failure is not None:
                raise store.failure
            with trio.move_on_after(_STALLED_S) as stall:  # a store says nothing when it begins to fail
                await self._changed.wait()
            if stall.cancelled_caught and store.failure is None:
                raise PeertaskError(
                    f"{wanted - len(self._tasks):,} tasks are not saved, and the store saves nothing more",
                    code=ErrorCode.STORE_FAILED,
                    remedy="The log says what was refused; what is saved stays, so import the file again afterwards",
                )


class _Advance:
    """Draws how far a long piece of work is."""

    def __init__(self, bar: Progress | None, what: str, total: int | None) -> None:
        self._bar = bar
        self._task = bar.add_task(what, total=total) if bar is not None else None
        self._done = 0

    def __call__(self) -> None:
        """Count one more task."""
        self._done += 1
        if self._done % _TASKS_A_DRAW == 0:
            self.draw()

    def draw(self) -> None:
        """Show the count as it is."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done, refresh=True)


def _bar() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console(err=True),
        auto_refresh=False,
    )


async def _records(store: Store) -> AsyncIterator[TaskRecord]:
    async with aclosing(store.load()) as records:
        async for record in records:
            yield record


async def _faults_of(store: Store, record: TaskRecord) -> list[str]:
    try:
        facts = await _facts(store, record.id)
        whole = len(facts) != record.seq or retell(facts)[-1].record == record
    except PeertaskError as error:
        return [f"task {record.id}: {error}"]
    return [] if whole else [f"task {record.id}: its facts do not lead to its record"]


async def _facts(store: Store, task_id: TaskId) -> list[Fact]:
    async with aclosing(store.facts(task_id)) as facts:
        return [fact async for fact in facts]


class _Lines:
    """Reads the lines of an export a lot at a time, because a file may be larger than memory."""

    def __init__(self, stream: IO[str], name: str) -> None:
        self._stream = stream
        self._name = name
        self._number = 0

    def next_lot(self) -> list[ArchivedTask]:
        """Return the next tasks; none at the end.

        Raises:
            PeertaskError: a line is too long, or not a task of an export.
        """
        lot: list[ArchivedTask] = []
        while len(lot) < _TASKS_A_DRAW and (line := self._stream.readline(_MAX_LINE_CHARS)):
            self._number += 1
            place = f"line {self._number} of {self._name}"
            if len(line) == _MAX_LINE_CHARS:
                raise PeertaskError(
                    f"{place} has more than {_MAX_LINE_CHARS:,} characters, which no task has",
                    code=ErrorCode.INVALID_TASK,
                    remedy="Take the line out",
                )
            if line.strip():
                lot.append(read_line(line, place))
        return lot


@contextmanager
def _lines(file: Path) -> Iterator[_Lines]:
    name = "standard input" if file == STANDARD else str(file)
    try:
        with nullcontext(sys.stdin) if file == STANDARD else file.open(encoding="utf-8") as stream:
            yield _Lines(stream, name)
    except (OSError, UnicodeDecodeError) as error:
        raise PeertaskError(
            f"{name} cannot be read: {error}", code=ErrorCode.INVALID_CONFIG, remedy="Name a file of an export"
        ) from error


@contextmanager
def _written(file: Path) -> Iterator[IO[str]]:
    """Open a file that is there only when it is whole, or standard output."""
    if file == STANDARD:
        yield sys.stdout
        sys.stdout.flush()
        return
    draft = None
    try:
        # Readable for its owner only, as the store is: it holds prompts and results.
        handle, draft = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            yield out
        Path(draft).replace(file)
    except OSError as error:
        raise PeertaskError(
            f"{file} cannot be written: {error.strerror}", code=ErrorCode.INVALID_CONFIG, remedy="Name another file"
        ) from error
    finally:
        if draft is not None:
            Path(draft).unlink(missing_ok=True)


def _size(place: Path) -> int | None:
    if place.is_dir():
        return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in place.parent.glob(f"{place.name}*")) or None
