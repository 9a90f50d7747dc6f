"""From a path to a connection that can be trusted: created, checked, migrated, and set up the same every time."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Final, Literal

from node.stores.sqlite.errors import explained, refuse
from node.stores.sqlite.files import APPLICATION_ID, companion, create_private, size_of
from node.stores.sqlite.integrity import check_header, damage, is_damage, is_orphaned, replace_damaged
from node.stores.sqlite.migrations import migrate

Synchronous = Literal["normal", "full"]

# UPDATE … FROM came with it, in 2020.
_OLDEST_SQLITE: Final = (3, 33, 0)
# Longer than any other program of ours holds a lock: a backup or a checkpoint of some hundred megabytes.
BUSY_TIMEOUT_MS: Final = 5_000
# Holds the hot part of the index of UUIDs; SQLite's own 2 MB are half of it at 100,000 records.
_CACHE_KIB: Final = 8 * 1024
# 64 MB: a commit that makes a checkpoint waits for the disk. A lone task writes some 20 pages at each side, so one of
# 400 meets one; with 16 MB one of a hundred did. A store makes them itself when it has nothing else to do.
_CHECKPOINT_PAGES: Final = 16_000
# What a WAL that had to grow is cut back to.
_WAL_BYTES: Final = 32 * 1024 * 1024
_STATEMENTS: Final = 256


def open_connection(path: Path, synchronous: Synchronous = "normal") -> sqlite3.Connection:
    """Open the database at a path for reading and writing, with the newest schema; blocks.

    A file that is not there is created, readable for its owner only. One that has an older schema is copied and
    migrated. One that is damaged is set aside; see `node.stores.sqlite.integrity`.

    Raises:
        PeertaskError: code STORE_FAILED; says why the file is not taken, and what to do.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise refuse(
            f"Python has SQLite {sqlite3.sqlite_version}, and peertask needs {'.'.join(map(str, _OLDEST_SQLITE))}",
            "Install a newer SQLite, or a Python that brings its own",
        )
    if path.parent.is_dir() and not os.access(path.parent, os.W_OK | os.X_OK):
        raise refuse(
            f"the SQLite store {path} cannot be opened: its folder may only be read",
            "Let the user of the node write to the folder, or move the data folder to a disk that is writable",
        )
    try:
        with explained(str(path), "opened"):
            return _open_checked(path, synchronous)
    except OSError as error:
        raise refuse(
            f"the SQLite store {path} cannot be opened: {error.strerror}",
            f"Look whether the folder {path.parent} is there, and let the user of the node write to it",
        ) from error


def _open_checked(path: Path, synchronous: Synchronous) -> sqlite3.Connection:
    if is_orphaned(path):
        replace_damaged(path, "its WAL is there, and its own content is gone")
    check_header(path)
    try:
        return _open_ready(path, synchronous)
    except _DamagedError as error:
        replace_damaged(path, str(error))
    return _open_ready(path, synchronous)


class _DamagedError(Exception):
    """The content of a file is wrong."""


def _open_ready(path: Path, synchronous: Synchronous) -> sqlite3.Connection:
    with suppress(FileExistsError):
        create_private(path)
    _check(path)
    with ExitStack() as cleaning:
        connection = cleaning.enter_context(closing(connect(str(path))))
        try:
            set_up(connection, str(path), synchronous)
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                raise _DamagedError(str(error)) from error
            raise
        cleaning.pop_all()
    return connection


def _check(path: Path) -> None:
    """Look for damage, without writing: a connection that may write moves the WAL into the file when it is closed."""
    mode = "ro" if size_of(companion(path, "-wal")) else "rw"
    with closing(connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True)) as connection:
        reason = damage(connection)
    if reason is not None:
        raise _DamagedError(reason)


def connect(database: str, *, uri: bool = False) -> sqlite3.Connection:
    """Return a connection that may be used from one thread after the other, in autocommit mode."""
    connection = sqlite3.connect(
        database, isolation_level=None, check_same_thread=False, cached_statements=_STATEMENTS, uri=uri
    )
    _apply_pragmas(connection, [("busy_timeout", BUSY_TIMEOUT_MS), ("foreign_keys", "ON")])
    return connection


def set_up(connection: sqlite3.Connection, place: str, synchronous: Synchronous) -> None:
    """Give a connection its settings and its database the newest schema.

    Raises:
        PeertaskError: code STORE_FAILED; says why not.
        sqlite3.Error: the same, in SQLite's words.
    """
    if not connection.execute("PRAGMA application_id").fetchone()[0]:
        _apply_pragmas(connection, [("application_id", APPLICATION_ID)])
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode not in {"wal", "memory"}:
        raise refuse(
            f"the SQLite store {place} cannot be opened: its file system has no WAL",
            "Move the data folder to a local disk",
        )
    _apply_pragmas(
        connection,
        [
            ("synchronous", synchronous.upper()),
            ("cache_size", -_CACHE_KIB),
            ("wal_autocheckpoint", _CHECKPOINT_PAGES),
            ("journal_size_limit", _WAL_BYTES),
            ("temp_store", "MEMORY"),
        ],
    )
    migrate(connection, place)


def _apply_pragmas(connection: sqlite3.Connection, pragmas: Iterable[tuple[str, object]]) -> None:
    for name, value in pragmas:
        connection.execute(f"PRAGMA {name} = {value}")


def compact(path: Path) -> None:
    """Give back the room of what was forgotten to the disk; blocks, needs as much room as the file, and no other user.

    Raises:
        PeertaskError: code STORE_FAILED; says why not.
    """
    with explained(str(path), "compacted"), closing(open_connection(path)) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
