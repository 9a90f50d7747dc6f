"""One connection to a database that is open: writes batches, and reads pages. Blocking; for a thread.

Two processes may have one file open, by mistake or to share it. So each write of a record names the number of the
record that it follows, in the statement itself: of two that follow on the same one, one wins, and the changes of the
other are refused.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from node.stores.sqlite.batch import Batch, Entry
from node.stores.sqlite.bulk import Bulk, insert_into
from node.stores.sqlite.rows import (
    ANYONE,
    EVENT_COLUMNS,
    READ_COLUMNS,
    STATUS_COLUMNS,
    TASK_COLUMNS,
    Row,
    event_row,
    read_fact,
    read_record,
    status_row,
    task_row,
)
from protocol import ErrorCode, Fact, PeertaskError, TaskId, TaskRecord

Refusals = dict[TaskId, PeertaskError]
"""The tasks of a batch that are not saved, and why."""

# Some milliseconds of reading: a commit waits for no longer than that.
PAGE_ROWS: Final = 500

_OPEN_WORDS = "('pending', 'claimed', 'in_progress')"
_FINISHED_WORDS = "('completed', 'failed')"

INSERT_TASKS = insert_into("tasks", TASK_COLUMNS)
INSERT_STATUS = insert_into("task_status", STATUS_COLUMNS)
INSERT_EVENTS = insert_into("events", EVENT_COLUMNS)
INSERT_PERSONAS = Bulk("INSERT OR IGNORE INTO personas (id, name, definition) VALUES {rows}", 3)
INSERT_AWAITED = Bulk("INSERT OR IGNORE INTO awaited_dependencies (task_id, uuid) VALUES {rows}", 2)
FORGET = Bulk("DELETE FROM tasks WHERE uuid IN (VALUES {rows})", 1)


def _replace_status() -> Bulk:
    """Return the compare-and-set: a row has the values of `STATUS_COLUMNS`, and the number that it follows."""
    new = {name: f"new.column{number}" for number, name in enumerate(STATUS_COLUMNS, 1)}
    new["claimed_at"] = f"COALESCE({new['claimed_at']}, task_status.claimed_at)"
    values = ", ".join(f"{name} = {new[name]}" for name in STATUS_COLUMNS[1:])
    return Bulk(
        f"UPDATE task_status SET {values} FROM (VALUES {{rows}}) AS new"  # noqa: S608 - constants
        f" WHERE task_status.task_id = new.column1 AND task_status.seq = new.column{len(STATUS_COLUMNS) + 1}",
        len(STATUS_COLUMNS) + 1,
    )


REPLACE_STATUS = _replace_status()

LAST_ROW_ID = "SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'tasks'"
LINK_DEPENDENCIES = (
    "INSERT OR IGNORE INTO task_dependencies (task_id, depends_on) SELECT awaited.task_id, tasks.id"
    " FROM awaited_dependencies AS awaited JOIN tasks ON tasks.uuid = awaited.uuid WHERE awaited.task_id = ?"
)
DROP_LINKED = "DELETE FROM awaited_dependencies WHERE task_id = ? AND uuid IN (SELECT uuid FROM tasks)"

_READ = f"SELECT {', '.join(READ_COLUMNS)} FROM tasks JOIN task_status ON task_status.task_id = tasks.id"  # noqa: S608
LOAD_PAGE = (
    f"SELECT tasks.id, {_READ.removeprefix('SELECT ')}"
    " WHERE (tasks.created_ms, tasks.id) > (?, ?) ORDER BY tasks.created_ms, tasks.id LIMIT ?"
)
READ_RECORD = f"{_READ} WHERE tasks.uuid = ?"
READ_FACTS = (
    "SELECT seq, fact, at_ms, attempt, body FROM events"
    " WHERE task_id = (SELECT id FROM tasks WHERE uuid = ?) AND seq > ? ORDER BY seq LIMIT ?"
)
OPEN_PAGE = (
    "SELECT task_status.task_id, tasks.uuid, task_status.seq FROM task_status"  # noqa: S608 - constants
    " JOIN tasks ON tasks.id = task_status.task_id"
    f" WHERE task_status.status IN {_OPEN_WORDS} AND task_status.task_id > ? ORDER BY task_status.task_id LIMIT ?"
)
FINISHED_PAGE = (
    "SELECT task_status.updated_ms, task_status.task_id, tasks.uuid FROM task_status"  # noqa: S608 - constants
    " JOIN tasks ON tasks.id = task_status.task_id"
    f" WHERE task_status.status IN {_FINISHED_WORDS} AND task_status.updated_ms < ?"
    " AND (task_status.updated_ms, task_status.task_id) > (?, ?)"
    " ORDER BY task_status.updated_ms, task_status.task_id LIMIT ?"
)

Place = tuple[int, int]
"""Where a page ended: a time and an integer key."""

BEGINNING: Place = (-1, -1)


class _Conflict(Exception):
    """A record on disk is not the one that a change follows."""


_UNSAVABLE = (sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError, ValueError, OverflowError, TypeError)
"""What a value raises that no row can hold: whatever happens to the disk, it will never be saved."""


class Database:
    """A connection, with what is known of the open tasks in it.

    Args:
        connection: to a database with the newest schema; closed by `close`.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._row_ids: dict[TaskId, int] = {}
        self._personas = {ANYONE}

    def close(self) -> None:
        """Close the connection; the last one of a file moves what is in the WAL into the file."""
        self._connection.close()

    # --- writing -----------------------------------------------------------------------------------------------------

    def write(self, batch: Batch) -> Refusals:
        """Save a batch in one transaction.

        Returns:
            The tasks that are not saved, because another process has changed them or no row can hold them. All others
            are.

        Raises:
            sqlite3.Error: nothing is saved; the same batch may be written again.
        """
        entries = list(batch.entries.values())
        refusals: Refusals = {}
        try:
            with self._transaction():
                new = self._write_entries(entries)
                self._forget(batch.forgotten)
        except (_Conflict, sqlite3.IntegrityError, *_UNSAVABLE):
            with self._transaction():
                new, refusals = self._write_each(entries)
                self._forget(batch.forgotten)
        self._remember(entries, new)
        for task_id in (*batch.forgotten, *refusals):
            self._row_ids.pop(task_id, None)
        return refusals

    def _remember(self, entries: Sequence[Entry], new: dict[TaskId, int]) -> None:
        self._row_ids.update(new)
        for entry in entries:
            if entry.record.terminal:
                self._row_ids.pop(entry.record.id, None)
            self._personas.add(entry.record.task.persona or ANYONE)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # SQLite takes some back by itself
                connection.execute("ROLLBACK")
            raise

    def _write_each(self, entries: Sequence[Entry]) -> tuple[dict[TaskId, int], Refusals]:
        """Write one task after the other, so that one that is refused takes no other with it."""
        new: dict[TaskId, int] = {}
        refusals: Refusals = {}
        for entry in entries:
            self._connection.execute("SAVEPOINT task")
            try:
                new.update(self._write_entries([entry]))
            except (_Conflict, sqlite3.IntegrityError, *_UNSAVABLE) as error:
                self._connection.execute("ROLLBACK TO task")
                refusals[entry.record.id] = _refusal(entry, error)
            self._connection.execute("RELEASE task")
        return new, refusals

    def _write_entries(self, entries: Sequence[Entry]) -> dict[TaskId, int]:
        """Write entries, or raise when one of them cannot be; returns the integer keys of new tasks."""
        born = [entry for entry in entries if not entry.seq_before]
        grown = [entry for entry in entries if entry.seq_before]
        new = self._insert(born) if born else {}
        if grown:
            self._replace(grown)
        row_ids = self._row_ids
        events = [
            (row_id, seq, fact)
            for entry in entries
            for row_id in (new.get(entry.record.id) or row_ids[entry.record.id],)
            for seq, fact in enumerate(entry.facts, entry.seq_before + 1)
        ]
        INSERT_EVENTS.run(self._connection, events, lambda event: event_row(*event))
        return new

    def _insert(self, entries: Sequence[Entry]) -> dict[TaskId, int]:
        connection = self._connection
        self._insert_personas({entry.record.task.persona or ANYONE for entry in entries})
        (last,) = connection.execute(LAST_ROW_ID).fetchone()
        keyed = list(enumerate(entries, last + 1))
        INSERT_TASKS.run(connection, keyed, lambda item: task_row(item[0], item[1].record))
        INSERT_STATUS.run(connection, keyed, lambda item: status_row(item[0], item[1].record, item[1].claimed_ms()))
        for row_id, entry in keyed:
            if entry.record.task.depends_on:
                self._insert_dependencies(row_id, entry.record.task.depends_on)
        return {entry.record.id: row_id for row_id, entry in keyed}

    def _insert_personas(self, names: set[str]) -> None:
        unknown = list(names - self._personas)
        INSERT_PERSONAS.run(self._connection, unknown, lambda name: (name, name, ""))

    def _insert_dependencies(self, row_id: int, uuids: Sequence[TaskId]) -> None:
        INSERT_AWAITED.run(self._connection, uuids, lambda uuid: (row_id, uuid))
        self._connection.execute(LINK_DEPENDENCIES, (row_id,))
        self._connection.execute(DROP_LINKED, (row_id,))

    def _replace(self, entries: Sequence[Entry]) -> None:
        if REPLACE_STATUS.run(self._connection, entries, self._replacement) != len(entries):
            raise _Conflict

    def _replacement(self, entry: Entry) -> Row:
        row_id = self._row_ids.get(entry.record.id, 0)
        return (*status_row(row_id, entry.record, entry.claimed_ms()), entry.seq_before)

    def _forget(self, task_ids: Iterable[TaskId]) -> None:
        FORGET.run(self._connection, list(task_ids), lambda task_id: (task_id,))

    # --- reading -----------------------------------------------------------------------------------------------------

    def open_tasks(self) -> dict[TaskId, int]:
        """Return the open tasks with the numbers of their last facts; their changes can be written from now on."""
        seqs: dict[TaskId, int] = {}
        last = 0
        while page := self._connection.execute(OPEN_PAGE, (last, PAGE_ROWS)).fetchall():
            for row_id, task_id, seq in page:
                self._row_ids[task_id] = row_id
                seqs[task_id] = seq
            last = page[-1][0]
        return seqs

    def load_page(self, after: Place) -> tuple[list[TaskRecord], Place]:
        """Return the next records, the oldest first, and where to go on; no records at the end."""
        records: list[TaskRecord] = []
        row: Row = (after[1],)
        for row in self._connection.execute(LOAD_PAGE, (*after, PAGE_ROWS)):
            records.append(read_record(row[1:]))
        return records, (records[-1].created_at, row[0]) if records else after

    def facts_page(self, task_id: TaskId, after_seq: int) -> list[tuple[int, Fact]]:
        """Return the next facts of a task with their numbers; none at the end."""
        rows = self._connection.execute(READ_FACTS, (task_id, after_seq, PAGE_ROWS)).fetchall()
        if not rows:
            return []
        record = read_record(self._connection.execute(READ_RECORD, (task_id,)).fetchone())
        return [(row[0], read_fact(record, row)) for row in rows]

    def finished_page(self, before_ms: int, after: Place) -> tuple[list[TaskId], Place]:
        """Return the next finished tasks whose last fact is older than a time, and where to go on; none at the end."""
        rows = self._connection.execute(FINISHED_PAGE, (before_ms, *after, PAGE_ROWS)).fetchall()
        return [row[2] for row in rows], rows[-1][:2] if rows else after


def _refusal(entry: Entry, error: Exception) -> PeertaskError:
    what = f"task {entry.record.id}: fact number {entry.seq_before + 1} cannot be saved"
    if isinstance(error, _Conflict) or _is_taken(error):
        return PeertaskError(
            f"{what}, because another process has changed the task",
            code=ErrorCode.CONFLICT,
            remedy="Give each node a file of its own",
        )
    return PeertaskError(f"{what}, because the file cannot hold it: {error}", code=ErrorCode.INTERNAL)


def _is_taken(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) in {
        sqlite3.SQLITE_CONSTRAINT_UNIQUE,
        sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
    }
