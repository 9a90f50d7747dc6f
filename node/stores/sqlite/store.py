"""The SQLite store: the seam `Store` over a writer, and pages that are read between two commits."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import structlog
import trio

from node.background import open_background
from node.coordination_service import TaskNumbers
from node.interfaces import Change, Committed, Refused, Store
from node.personas import FoundPersonas, Persona, PersonaSource, placed
from node.stores.sqlite.batch import MAX_CHANGES, Batch, Forgotten, NewTasks
from node.stores.sqlite.database import BEGINNING, Database, Refusals
from node.stores.sqlite.errors import explained, refuse
from node.stores.sqlite.opening import Synchronous, open_connection
from node.stores.sqlite.thread import OwnThread, open_thread
from node.stores.sqlite.writer import GroupWriter
from node.work_service import Agent, AgentStore
from protocol import ErrorCode, Fact, PeertaskError, TaskId, TaskRecord

_Value = TypeVar("_Value")

log = structlog.get_logger(__name__)

# The number of a task that another process has changed: no change follows on it.
_LOST = -2


class SqliteStore(AgentStore, Store, TaskNumbers, PersonaSource):
    """Keeps records and all their facts in one SQLite file, with its WAL, until they are forgotten.

    What is committed survives `kill -9`; with `synchronous="full"` it survives the loss of power too, and each commit
    waits for the disk. Everything that touches the file happens in a thread of its own. Nothing is opened
    before `running`, except by a reader of a store that is not running.

    Args:
        path: the file; its folder must be there.
        synchronous: "normal" or "full", as in SQLite.
    """

    def __init__(self, path: Path | str, *, synchronous: Synchronous = "normal") -> None:
        self._place = str(path)
        self._open: Callable[[], sqlite3.Connection] = partial(open_connection, Path(path), synchronous)
        self._refused: Refused | None = None
        self._committed: Committed | None = None
        self._file: _OpenFile | None = None
        self._writer: GroupWriter | None = None
        self._seqs: dict[TaskId, int] = {}

    def __repr__(self) -> str:
        return f"<SqliteStore {self._place}>"

    @asynccontextmanager
    async def running(self, committed: Committed) -> AsyncIterator[None]:
        """Be open for the length of the context; on leaving, everything appended is committed first.

        While nothing can be saved, leaving waits 5 seconds for it, and then logs how much is not saved.

        Raises:
            PeertaskError: code STORE_FAILED, when it is open already, or the file cannot be opened: says why.
        """
        if self._committed is not None:
            raise refuse(f"the SQLite store {self._place} is open already", "Give each node a store of its own")
        self._committed = committed
        try:
            async with self._opened() as file:
                self._seqs = await file.read(file.database.open_tasks)
                async with self._writing(file):
                    yield
        finally:
            self._committed = None

    @asynccontextmanager
    async def _writing(self, file: _OpenFile) -> AsyncIterator[None]:
        writer = GroupWriter(file.database, self._saved, file.thread, self._place)
        async with open_background() as nursery:
            nursery.start_soon(writer.run)
            self._file, self._writer = file, writer
            try:
                yield
            finally:
                with trio.CancelScope(shield=True):
                    await writer.close()
                self._file = self._writer = None

    @property
    def failure(self) -> PeertaskError | None:
        """Why nothing can be saved at the moment; None when all is well, or the store is not running."""
        return None if self._writer is None else self._writer.failure

    # --- writing -----------------------------------------------------------------------------------------------------

    def append(self, changes: Sequence[Change]) -> None:
        """Put changes of one task in line for the next commit; never waits.

        Raises:
            PeertaskError: code CONFLICT, when another `seq` is next, or another process has changed the task;
                STORE_FAILED, when the store is not open.
        """
        if self._writer is None:
            raise self._not_open()
        record = changes[-1].record
        task_id = record.id
        known = self._seqs.get(task_id, 0)
        if record.seq != known + len(changes):
            raise _conflict(changes[0].record, known)
        self._seqs[task_id] = record.seq
        self._writer.put(changes)

    def append_new(self, changes: Sequence[Change]) -> None:
        """Put new tasks in line for a commit of their own; raises as `append` does."""
        if self._writer is None:
            raise self._not_open()
        for record, _ in changes:
            if record.id in self._seqs:
                raise _conflict(record, self._seqs[record.id])
        self._seqs.update((record.id, record.seq) for record, _ in changes)
        self._writer.put(NewTasks(changes))

    def hurry(self) -> None:
        """Commit what has come, also what may wait for the end of its task; see `node.stores.sqlite.writer`."""
        if self._writer is not None:
            self._writer.hurry()

    def forget(self, task_ids: Iterable[TaskId]) -> None:
        """Drop the records and facts of these tasks, if they are there, after what was appended before."""
        if self._writer is None:
            raise self._not_open()
        forgotten = tuple(task_ids)
        for task_id in forgotten:
            self._seqs.pop(task_id, None)
        for start in range(0, len(forgotten), MAX_CHANGES):
            self._writer.put(Forgotten(forgotten[start : start + MAX_CHANGES]))

    def _not_open(self) -> PeertaskError:
        return PeertaskError(f"the SQLite store {self._place} is not open", code=ErrorCode.STORE_FAILED)

    def _saved(self, batch: Batch, refusals: Refusals) -> None:
        for entry in batch.entries.values():
            record = entry.record
            if record.terminal and self._seqs.get(record.id) == record.seq:
                del self._seqs[record.id]
        changes: Sequence[Change] = batch.changes
        if refusals:
            changes = [change for change in changes if change.record.id not in refusals]
            self._log_refusals(refusals)
            self._refuse_all(refusals, batch)
        if changes and self._committed is not None:
            self._committed(changes)

    def _log_refusals(self, refusals: Refusals) -> None:
        """Log once for each commit: when two nodes share a file by mistake there are thousands."""
        task_id, error = next(iter(refusals.items()))
        log.error(
            "changes are not saved, and will not be",
            store=self._place,
            tasks=len(refusals),
            task_id=task_id,
            error=str(error),
        )

    def _refuse_all(self, refusals: Refusals, batch: Batch) -> None:
        lost: dict[TaskId, list[Change]] = {task_id: [] for task_id in refusals}
        for change in batch.changes:
            if change.record.id in lost:
                lost[change.record.id].append(change)
        for task_id, error in refusals.items():
            self._refuse(task_id, error, lost[task_id])

    def _refuse(self, task_id: TaskId, error: PeertaskError, changes: list[Change]) -> None:
        """Give a task up whose changes are not saved, with all that follows on them."""
        self._seqs[task_id] = _LOST
        if self._writer is not None:
            changes.extend(self._writer.drop(task_id))
        if self._refused is not None:
            # Without the folder: a peer that waits for the task is told too.
            message = f"{error.message} in {Path(self._place).name}"
            self._refused(changes, PeertaskError(message, code=error.code, remedy=error.remedy))

    def on_refused(self, listener: Refused) -> None:
        """Tell of changes that are not saved, because another process has changed the task, or no row can hold them."""
        self._refused = listener

    # --- reading -----------------------------------------------------------------------------------------------------

    async def load(self) -> AsyncGenerator[TaskRecord]:
        """Yield every record, the oldest first; those of one millisecond in the order of their first commit.

        What was appended before is waited for, unless saving fails.

        Raises:
            PeertaskError: code STORE_FAILED; names the record that cannot be read, and why.
        """
        async with self._reading() as file:
            place = BEGINNING
            while True:
                records, place = await file.read(file.database.load_page, place)
                if not records:
                    return
                for record in records:
                    yield record

    async def facts(self, task_id: TaskId, after_seq: int = 0) -> AsyncGenerator[Fact]:
        """Yield all facts of a task whose number is greater than `after_seq`, also when it has ended."""
        async with self._reading() as file:
            last_seq = after_seq
            while page := await file.read(file.database.facts_page, task_id, last_seq):
                for _seq, fact in page:
                    yield fact
                last_seq = page[-1][0]

    async def number_of(self, task_id: TaskId) -> int | None:
        """Return the number of a task in this file, greater than 0; None when it is not saved here."""
        async with self._reading() as file:
            return await file.read(file.database.number_of, task_id)

    async def numbers_of(self, task_ids: Sequence[TaskId]) -> dict[TaskId, int]:
        """Return the numbers of those of some tasks that are saved here."""
        async with self._reading() as file:
            return await file.read(file.database.numbers_of, task_ids)

    async def task_of(self, number: int) -> TaskId | None:
        """Return which task has a number in this file; None when none has."""
        async with self._reading() as file:
            return await file.read(file.database.task_of, number)

    # --- personas ----------------------------------------------------------------------------------------------------

    async def personas(self) -> FoundPersonas:
        """Return the rows of the table that have a definition; see `PersonaSource.personas`."""
        found = FoundPersonas([], [])
        async with self._reading() as file:
            rows = await file.read(file.database.personas)
        for persona_id, name, definition in rows:
            try:
                found.personas.append(Persona.of(id=persona_id, name=name, definition=definition, place=self._place))
            except PeertaskError as error:
                found.problems.append(f"{self._place}: {error.message}. Correct the row of the table personas")
        return found

    async def save_persona(self, persona: Persona) -> Persona:
        """Insert or replace the row of a persona; see `PersonaSource.save_persona`."""
        async with self._reading() as file:
            await file.write(file.database.save_persona, persona.id, persona.name, persona.definition)
        return placed(persona, self._place)

    async def remove_persona(self, persona_id: str) -> bool:
        """Empty the definition of a persona, to whose row tasks may refer; see `PersonaSource.remove_persona`."""
        async with self._reading() as file:
            return await file.write(file.database.forget_persona, persona_id)

    # --- agents ------------------------------------------------------------------------------------------------------

    async def agents(self) -> list[Agent]:
        """Return every agent that is kept, in the order of their registration."""
        async with self._reading() as file:
            return await file.read(file.database.agents)

    async def save_agent(self, agent: Agent) -> None:
        """Keep an agent, instead of the one that had its id."""
        await self._write(Database.save_agent, agent)

    async def remove_agent(self, agent_id: str) -> None:
        """Drop an agent, if it is there."""
        await self._write(Database.remove_agent, agent_id)

    async def _write(self, change: Callable[..., None], *args: object) -> None:
        """Change what is not in line with the tasks, between two commits."""
        if self._file is None:
            raise self._not_open()
        with explained(self._place, "saved to"):
            await self._file.thread.run_sync(change, self._file.database, *args)

    # --- the file ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[_OpenFile]:
        if self._writer is not None and self._file is not None:
            await self._writer.wait_saved()
            yield self._file
            return
        async with self._opened() as file:
            yield file

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[_OpenFile]:
        async with open_thread("peertask-sqlite") as thread:
            database = Database(await thread.run_sync(self._open))
            try:
                yield _OpenFile(database, thread, self._place)
            finally:
                with trio.CancelScope(shield=True), explained(self._place, "closed"):
                    await thread.run_sync(database.close)


class _OpenFile(NamedTuple):
    """A database, and the thread that it is used in."""

    database: Database
    thread: OwnThread
    place: str

    async def read(self, page: Callable[..., _Value], *args: object) -> _Value:
        with explained(self.place, "read"):
            return await self.thread.run_sync(page, *args)

    async def write(self, change: Callable[..., _Value], *args: object) -> _Value:
        with explained(self.place, "saved to"):
            return await self.thread.run_sync(change, *args)


def _conflict(record: TaskRecord, known: int) -> PeertaskError:
    reasons = {_LOST: "another process has changed the task", 0: "the store holds no open record of it"}
    reason = reasons.get(known, f"the store holds number {known} of it")
    return PeertaskError(
        f"task {record.id}: fact number {record.seq} cannot be kept, because {reason}",
        code=ErrorCode.CONFLICT,
        remedy="Give each node a file of its own" if known == _LOST else "",
    )
