"""SQLite in memory, with the schema and the code of the real store."""

from __future__ import annotations

import sqlite3
import weakref
from itertools import count
from typing import Final

from node.stores.sqlite.opening import connect, set_up
from node.stores.sqlite.store import SqliteStore

_numbers: Final = count(1)


class FakeSqliteDatabase(SqliteStore):
    """A store whose database is in the memory of this process: no file, and no waiting for a disk.

    What it holds outlives `running`, as a file does, and ends with this object.

    Attributes:
        connection: a second connection to the same database, for tests that look with SQL; sees what is committed.
    """

    def __init__(self) -> None:
        name = f"file:peertask-{next(_numbers)}?mode=memory&cache=shared"
        super().__init__(name)
        self.connection = _open(name)
        self._open = lambda: _open(name)
        weakref.finalize(self, self.connection.close)


def _open(name: str) -> sqlite3.Connection:
    connection = connect(name, uri=True)
    set_up(connection, name, "normal")
    return connection
