"""One connection to a database that is open: writes batches, and reads pages. Blocking; for a thread.

Two processes may have one file open, by mistake or to share it. So each write of a record names the number of the
record that it follows, in the statement itself: of two that follow on the same one, one wins, and the changes of the
other are refused.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from node.stores.sqlite.agents import read_agents, remove_agent, save_agent
from node.stores.sqlite.batch import Batch, Entry
from node.stores.sqlite.bulk import Bulk
from node.stores.sqlite.columns import (
    ANYONE,
    EVENT_COLUMNS,
    MAY_BE_EMPTY,
    MAY_BE_NEGATIVE,
    READ_COLUMNS,
    RESULT_COLUMNS,
    STATUS_COLUMNS,
    TASK_COLUMNS,
    Row,
)
from node.stores.sqlite.from_rows import read_fact, read_record
from node.stores.sqlite.to_rows import event_row, failure_row, result_row, status_row, task_row
from node.work_service import Agent
from protocol import ErrorCode, Fact, PeertaskError, TaskId, TaskRecord

Refusals = dict[TaskId, PeertaskError]
"""The tasks of a batch that are not saved, and why."""

# Some milliseconds of reading: a commit waits for no longer than that.
PAGE_ROWS: Final = 500


def _placeholder(column: str) -> str:
    if column in MAY_BE_EMPTY:
        return "NULLIF(?, '')"
    return "NULLIF(?, -1)" if column in MAY_BE_NEGATIVE else "?"


def _insert_into(table: str, columns: Sequence[str], *, verb: str = "INSERT") -> Bulk:
    names = ", ".join(columns)
    return Bulk(
        f"{verb} INTO {table} ({names}) SELECT * FROM (VALUES {{rows}}) WHERE column1 > 0",  # noqa: S608 - constants
        [_placeholder(column) for column in columns],
    )


def _replace_status(finished_ms: str) -> Bulk:
    """Return the compare-and-set: a row has the values of `STATUS_COLUMNS`, and the number that it follows."""
    new = {name: f"new.column{number}" for number, name in enumerate(STATUS_COLUMNS, 1)}
    follows = f"new.column{len(STATUS_COLUMNS) + 1}"
    values = {**new, "claimed_at": f"COALESCE({new['claimed_at']}, claimed_at)"}
    if finished_ms:
        values["finished_ms"] = new[finished_ms]
    assignments = ", ".join(f"{name} = {value}" for name, value in values.items() if name != "task_id")
    return Bulk(
        f"UPDATE task_status SET {assignments} FROM (VALUES {{rows}}) AS new"  # noqa: S608 - made of constants
        f" WHERE task_status.task_id = {new['task_id']} AND task_status.seq = {follows}",
        [*map(_placeholder, STATUS_COLUMNS), "?"],
    )


def _insert_status() -> Bulk:
    names = ", ".join((*STATUS_COLUMNS, "finished_ms"))
    word, updated_ms = (f"column{STATUS_COLUMNS.index(name) + 1}" for name in ("status", "updated_ms"))
    return Bulk(
        f"INSERT INTO task_status ({names})"  # noqa: S608 - made of constants
        f" SELECT *, CASE WHEN {word} IN ('completed', 'failed') THEN {updated_ms} END"
        " FROM (VALUES {rows}) WHERE column1 > 0",
        [*map(_placeholder, STATUS_COLUMNS)],
    )


INSERT_TASKS = _insert_into("tasks", TASK_COLUMNS)
INSERT_STATUS = _insert_status()
REPLACE_STATUS = _replace_status("")
FINISH_STATUS = _replace_status("updated_ms")
INSERT_RESULTS = _insert_into("task_results", RESULT_COLUMNS)
INSERT_FAILURES = _insert_into("task_results", (RESULT_COLUMNS[0], RESULT_COLUMNS[-1]))
INSERT_EVENTS = _insert_into("events", EVENT_COLUMNS)
INSERT_PERSONAS = _insert_into("personas", ("id", "name", "definition"), verb="INSERT OR IGNORE")
READ_PERSONAS = "SELECT id, name, definition FROM personas WHERE definition <> '' AND id <> ? ORDER BY id"
SAVE_PERSONA = (
    "INSERT INTO personas (id, name, definition) VALUES (?, ?, ?)"
    " ON CONFLICT (id) DO UPDATE SET name = excluded.name, definition = excluded.definition"
)
# The row stays, because tasks may refer to it.
FORGET_PERSONA = "UPDATE personas SET name = id, definition = '' WHERE definition <> '' AND id = ?"
INSERT_AWAITED = _insert_into("awaited_dependencies", ("task_id", "uuid"), verb="INSERT OR IGNORE")
FORGET = Bulk("DELETE FROM tasks WHERE uuid IN (VALUES {rows})", ["?"])

LAST_ROW_ID = "SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = 'tasks'"
# What is the same in every new task needs no values.
INSERT_SUBMITTED = (
    "INSERT INTO events (task_id, seq, fact, at_ms, attempt)"
    " SELECT id, 1, 'Submitted', created_ms, 0 FROM tasks WHERE id > ?"
)
LINK_DEPENDENCIES = (
    "INSERT OR IGNORE INTO task_dependencies (task_id, depends_on) SELECT awaited.task_id, tasks.id"
    " FROM awaited_dependencies AS awaited JOIN tasks ON tasks.uuid = awaited.uuid WHERE awaited.task_id > ?"
)
DROP_LINKED = "DELETE FROM awaited_dependencies WHERE task_id > ? AND uuid IN (SELECT uuid FROM tasks)"

_COLUMNS = ", ".join(READ_COLUMNS)
ALL_ROWS = (
    "tasks JOIN task_status ON task_status.task_id = tasks.id LEFT JOIN task_results ON task_results.task_id = tasks.id"
)
LOAD_PAGE = (
    f"SELECT id, {_COLUMNS} FROM {ALL_ROWS}"  # noqa: S608 - made of constants, as the next ones
    " WHERE (created_ms, id) > (?, ?) ORDER BY created_ms, id LIMIT ?"
)
READ_RECORD = f"SELECT {_COLUMNS} FROM {ALL_ROWS} WHERE uuid = ?"  # noqa: S608
READ_NUMBERS = "SELECT uuid, id FROM tasks WHERE uuid IN (SELECT value FROM json_each(?))"
READ_FACTS = (
    "SELECT seq, fact, at_ms, attempt, body FROM events"
    " WHERE task_id = (SELECT id FROM tasks WHERE uuid = ?) AND seq > ? ORDER BY seq LIMIT ?"
)
OPEN_PAGE = (
    "SELECT task_id, uuid, seq FROM task_status JOIN tasks ON id = task_id"
    " WHERE finished_ms IS NULL AND task_id > ? ORDER BY task_id LIMIT ?"
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

    def close(self) -> None:
        """Close the connection; the last one of a file moves what is in the WAL into the file."""
        self._connection.close()

    def checkpoint(self) -> None:
        """Move what is in the WAL into the file, as far as nobody is in the way; what fails comes again later."""
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    # --- writing -----------------------------------------------------------------------------------------------------

    def write(self, batch: Batch) -> Refusals:
        """Save a batch in one transaction.

        Returns:
            The tasks that are not saved, because another process has changed them or no row can hold them. All others
            are, unless the batch is saved as a whole or not at all.

        Raises:
            sqlite3.Error: nothing is saved; the same batch may be written again.
        """
        entries = list(batch.entries.values())
        refusals: Refusals = {}
        try:
            with self._transaction():
                self._write_entries(entries)
                self._forget(batch.forgotten)
        except (_Conflict, sqlite3.IntegrityError, *_UNSAVABLE) as error:
            if batch.whole:
                return {entry.record.id: _refusal(entry, error) for entry in entries}
            with self._transaction():
                refusals = self._write_each(entries)
                self._forget(batch.forgotten)
        self._remember(entries)
        for task_id in (*batch.forgotten, *refusals):
            self._row_ids.pop(task_id, None)
        return refusals

    def _remember(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if entry.record.terminal:
                self._row_ids.pop(entry.record.id, None)
            else:
                self._row_ids[entry.record.id] = entry.row_id

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

    def _write_each(self, entries: Sequence[Entry]) -> Refusals:
        """Write one task after the other, so that one that is refused takes no other with it."""
        refusals: Refusals = {}
        for entry in entries:
            self._connection.execute("SAVEPOINT task")
            try:
                self._write_entries([entry])
            except (_Conflict, sqlite3.IntegrityError, *_UNSAVABLE) as error:
                self._connection.execute("ROLLBACK TO task")
                refusals[entry.record.id] = _refusal(entry, error)
            self._connection.execute("RELEASE task")
        return refusals

    def _write_entries(self, entries: Sequence[Entry]) -> None:
        """Write entries, or raise when one of them cannot be."""
        born = [entry for entry in entries if not entry.seq_before]
        if born:
            self._insert(born)
        grown = [entry for entry in entries if entry.seq_before]
        for entry in grown:
            entry.row_id = self._row_ids.get(entry.record.id, 0)
        self._replace(REPLACE_STATUS, [entry for entry in grown if not entry.record.terminal])
        self._replace(FINISH_STATUS, [entry for entry in grown if entry.record.terminal])
        self._insert_outcomes([entry for entry in entries if entry.record.terminal])
        events = [
            (entry.row_id, seq, fact)
            for entry in entries
            for seq, fact in enumerate(entry.facts, entry.seq_before + 1)
            if seq > 1
        ]
        INSERT_EVENTS.run(self._connection, events, lambda event: event_row(*event))

    def _insert(self, entries: Sequence[Entry]) -> None:
        """Insert new tasks as they are by now, with their first facts."""
        connection = self._connection
        self._insert_personas({entry.record.task.persona or ANYONE for entry in entries})
        (last,) = connection.execute(LAST_ROW_ID).fetchone()
        for row_id, entry in enumerate(entries, last + 1):
            entry.row_id = row_id
        INSERT_TASKS.run(connection, entries, lambda entry: task_row(entry.row_id, entry.record))
        INSERT_STATUS.run(connection, entries, _status_row)
        connection.execute(INSERT_SUBMITTED, (last,))
        awaited = [(entry.row_id, uuid) for entry in entries for uuid in entry.record.task.depends_on]
        if awaited:
            INSERT_AWAITED.run(connection, awaited, lambda row: row)
            connection.execute(LINK_DEPENDENCIES, (last,))
            connection.execute(DROP_LINKED, (last,))

    def _insert_personas(self, names: set[str]) -> None:
        INSERT_PERSONAS.run(self._connection, list(names - {ANYONE}), lambda name: (name, name, ""))

    def _insert_outcomes(self, entries: Sequence[Entry]) -> None:
        complete = [(entry.row_id, entry.record.result) for entry in entries if entry.record.result is not None]
        failed = [(entry.row_id, entry.record.failure) for entry in entries if entry.record.failure is not None]
        INSERT_RESULTS.run(self._connection, complete, lambda item: result_row(*item))
        INSERT_FAILURES.run(self._connection, failed, lambda item: failure_row(*item))

    def _replace(self, statement: Bulk, entries: Sequence[Entry]) -> None:
        if statement.run(self._connection, entries, _replacement) != len(entries):
            raise _Conflict

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

    def number_of(self, task_id: TaskId) -> int | None:
        """Return the number of a task in this file, which is greater than 0; None when it is not there."""
        row = self._connection.execute("SELECT id FROM tasks WHERE uuid = ?", (task_id,)).fetchone()
        return None if row is None else int(row[0])

    def personas(self) -> list[Row]:
        """Return the ids, names and definitions of the personas that have one."""
        return self._connection.execute(READ_PERSONAS, (ANYONE,)).fetchall()

    def save_persona(self, persona_id: str, name: str, definition: str) -> None:
        """Insert a persona, or replace what is said about it."""
        self._connection.execute(SAVE_PERSONA, (persona_id, name, definition))

    def forget_persona(self, persona_id: str) -> bool:
        """Drop what is said about a persona; return whether anything was."""
        return persona_id != ANYONE and self._connection.execute(FORGET_PERSONA, (persona_id,)).rowcount > 0

    def numbers_of(self, task_ids: Sequence[TaskId]) -> dict[TaskId, int]:
        """Return the numbers of those of some tasks that are in this file."""
        numbers: dict[TaskId, int] = {}
        for first in range(0, len(task_ids), PAGE_ROWS):
            some = json.dumps(task_ids[first : first + PAGE_ROWS])
            numbers.update(self._connection.execute(READ_NUMBERS, (some,)).fetchall())
        return numbers

    def task_of(self, number: int) -> TaskId | None:
        """Return which task has a number in this file; None when none has."""
        row = self._connection.execute("SELECT uuid FROM tasks WHERE id = ?", (number,)).fetchone()
        return None if row is None else TaskId(row[0])

    def agents(self) -> list[Agent]:
        """Return every agent, in the order of their registration."""
        return read_agents(self._connection)

    def save_agent(self, agent: Agent) -> None:
        """Write an agent, instead of the one that had its id."""
        with self._transaction():
            save_agent(self._connection, agent)

    def remove_agent(self, agent_id: str) -> None:
        """Drop an agent, if it is there."""
        remove_agent(self._connection, agent_id)


def _status_row(entry: Entry) -> Row:
    return status_row(entry.row_id, entry.record, entry.claimed_ms())


def _replacement(entry: Entry) -> Row:
    """Return the new row, and the number of the record that it follows."""
    return (*_status_row(entry), entry.seq_before)


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
