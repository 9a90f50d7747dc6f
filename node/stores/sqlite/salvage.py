"""What can be read of a damaged database goes into a new one.

Damage is in single pages: a lost sector, a copy that was cut off. So each table is copied by ranges of its key, and a
range that cannot be read is halved until only what is lost is left out. Then goes what is not whole without it: a task
needs both its rows, and its result when it has ended; of the facts those stay that have no gap behind them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from node.stores.sqlite.columns import READ_COLUMNS
from node.stores.sqlite.database import ALL_ROWS
from node.stores.sqlite.files import APPLICATION_ID, companion, size_of, version_of
from node.stores.sqlite.from_rows import read_record
from node.stores.sqlite.migrations import known_migrations, migrate
from protocol import PeertaskError

# Each table by the integer that its rows are found by, those that others refer to first.
_TABLES: Final = {
    "personas": "rowid",
    "tasks": "id",
    "task_status": "task_id",
    "task_results": "task_id",
    "task_dependencies": "task_id",
    "agents": "rowid",
    "events": "task_id",
}
# Each takes some ten microseconds; a file that needs more is lost in so many places that little can be in it.
MAX_ATTEMPTS: Final = 200_000

# What refers to nothing goes; personas are put together again, because their names are all that is needed of them.
_CLEANING: Final = """
INSERT OR IGNORE INTO personas (id, name, definition)
SELECT persona_id, persona_id, '' FROM tasks UNION SELECT persona_id, persona_id, '' FROM agents;
DELETE FROM tasks WHERE id NOT IN (SELECT task_id FROM task_status);
DELETE FROM tasks WHERE id IN (SELECT task_id FROM task_status WHERE finished_ms IS NOT NULL)
AND id NOT IN (SELECT task_id FROM task_results);
DELETE FROM task_status WHERE task_id NOT IN (SELECT id FROM tasks);
DELETE FROM task_results WHERE task_id NOT IN (SELECT id FROM tasks);
DELETE FROM task_dependencies
WHERE task_id NOT IN (SELECT id FROM tasks) OR depends_on NOT IN (SELECT id FROM tasks);
DELETE FROM events WHERE task_id NOT IN (SELECT id FROM tasks);
"""
# The facts up to a gap; the record after the last fact is the end of them.
_GAPS: Final = """
CREATE TEMP TABLE gaps AS SELECT task_id, MAX(seq) AS seq FROM (
    SELECT task_id, seq, LEAD(seq, 1, (SELECT seq + 1 FROM task_status WHERE task_id = events.task_id))
    OVER (PARTITION BY task_id ORDER BY seq) AS next FROM events
) WHERE next <> seq + 1 GROUP BY task_id;
DELETE FROM events WHERE seq <= (SELECT seq FROM gaps WHERE task_id = events.task_id);
DROP TABLE gaps;
"""


def salvage(damaged: Path, path: Path) -> int:
    """Make a database of what can be read of a damaged one, which stays as it is.

    Args:
        damaged: what cannot be trusted.
        path: an empty file, or one that is not there.

    Returns:
        How many tasks were brought over.

    Raises:
        sqlite3.Error: nothing can be read of it, because its schema is lost; or the new file cannot be written.
    """
    with closing(sqlite3.connect(path, isolation_level=None, uri=True)) as new:
        new.execute("PRAGMA synchronous = OFF")  # until it is complete it is worth nothing
        new.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        migrate(new, str(path), known_migrations()[: version_of(damaged)])
        _attach(new, damaged)
        _Copying(new).copy_all()
        new.executescript(_CLEANING + _GAPS)
        new.executemany("DELETE FROM tasks WHERE uuid = ?", list(_unreadable(new)))
        new.execute("DETACH damaged")
        (tasks,) = new.execute("SELECT count(*) FROM tasks").fetchone()
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return int(tasks)


def _attach(new: sqlite3.Connection, damaged: Path) -> None:
    # Without a WAL nothing of it can change, and then SQLite neither locks it nor makes files beside it.
    mode = "mode=ro" if size_of(companion(damaged, "-wal")) else "immutable=1"
    # This lets SQLite read a file that is shorter than its header says.
    new.execute("PRAGMA writable_schema = ON")
    new.execute("ATTACH ? AS damaged", (f"{damaged.absolute().as_uri()}?{mode}",))


def _unreadable(new: sqlite3.Connection) -> Iterator[tuple[str]]:
    new.execute("PRAGMA foreign_keys = ON")
    for row in new.execute(f"SELECT {', '.join(READ_COLUMNS)} FROM {ALL_ROWS}"):  # noqa: S608 - constants
        try:
            read_record(row)
        except PeertaskError:
            yield (row[0],)


class _Copying:
    """Copies table by table, as far as it goes."""

    def __init__(self, new: sqlite3.Connection) -> None:
        self._new = new
        self._attempts_left = MAX_ATTEMPTS

    def copy_all(self) -> None:
        last = max(self._last_keys(), default=0)
        for table, key in _TABLES.items():
            columns = ", ".join(row[1] for row in self._new.execute(f"PRAGMA main.table_info({table})"))
            self._copy(
                f"INSERT OR IGNORE INTO main.{table} ({columns}) SELECT {columns} FROM damaged.{table}"  # noqa: S608
                f" WHERE {key} BETWEEN ? AND ?",
                0,
                last,
            )

    def _last_keys(self) -> Iterator[int]:
        """Yield the greatest keys that can be found, in whatever part of the file is whole."""
        queries = ["SELECT seq FROM damaged.sqlite_sequence WHERE name = 'tasks'"]
        queries += [f"SELECT MAX({key}) FROM damaged.{table}" for table, key in _TABLES.items()]  # noqa: S608
        for query in queries:
            try:
                (last,) = self._new.execute(query).fetchone() or (0,)
            except sqlite3.DatabaseError:
                continue
            yield last or 0

    def _copy(self, statement: str, first: int, last: int) -> None:
        """Copy a range, and when that fails its halves."""
        if self._attempts_left <= 0:
            return
        self._attempts_left -= 1
        try:
            self._new.execute(statement, (first, last))
        except sqlite3.DatabaseError:
            if first < last:
                middle = (first + last) // 2
                self._copy(statement, first, middle)
                self._copy(statement, middle + 1, last)
