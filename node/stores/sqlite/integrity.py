"""Whether a file can be trusted, and what becomes of one that cannot.

A damaged database is set aside under another name, with its WAL, and the node goes on with a new one that has all that
can be read: it serves what it can, and the damaged file is not written to. That is done only when two things are
certain: the first bytes of the file say that it is a database of peertask, and SQLite says that its content is damaged.
A disk that does not read, a lock, a file of another program, or a name that cannot be changed is an error instead.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import structlog

from node.stores.sqlite.errors import explained, family_of, refuse
from node.stores.sqlite.files import (
    APPLICATION_ID,
    HEADER_BYTES,
    companion,
    create_private,
    free_name,
    set_aside,
    size_of,
    version_of,
)
from node.stores.sqlite.migrations import check_version
from node.stores.sqlite.salvage import salvage
from protocol import PeertaskError

_MAGIC: Final = b"SQLite format 3\x00"
_APPLICATION_ID_AT: Final = slice(68, 72)

_WAY_BACK: Final = (
    "If you have a better copy, stop the node and put it in the place of {path}; nothing in {aside} was changed, and it"
    " can be deleted when nothing is missing"
)

log = structlog.get_logger(__name__)


def check_header(path: Path) -> None:
    """Refuse a file that is not a database of peertask, or is newer than this program; an empty one may become one.

    Raises:
        PeertaskError: code STORE_FAILED; says what the file is instead.
        OSError: it cannot be read.
    """
    if not size_of(path):
        return
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if not header.startswith(_MAGIC) or len(header) < HEADER_BYTES:
        raise refuse(
            f"the SQLite store {path} cannot be opened: it is not an SQLite database, or its beginning is lost",
            "Name another file, or move this one away: it is left as it is",
        )
    if int.from_bytes(header[_APPLICATION_ID_AT], "big") != APPLICATION_ID:
        raise refuse(
            f"the SQLite store {path} cannot be opened: it is the database of another program",
            "Name another file: this one is left as it is",
        )
    check_version(version_of(path), str(path))


def damage(connection: sqlite3.Connection) -> str | None:
    """Look through a database quickly, some 200 MB a second, and return what is wrong with it, or None.

    Raises:
        sqlite3.Error: it cannot be read, which is no proof that it is damaged.
    """
    try:
        (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return str(error)
    return None if answer == "ok" else str(answer).replace("\n", " ")


def find_faults(path: Path) -> list[str]:
    """Look through every page, index and reference of a file without changing it, and return what is wrong, in words.

    Raises:
        PeertaskError: code STORE_FAILED, when it is not a database of peertask, or cannot be read.
    """
    check_header(path)
    with (
        explained(str(path), "checked"),
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection,
    ):
        faults = [str(row[0]) for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
        references = connection.execute("PRAGMA foreign_key_check").fetchall()
    return faults + [f"row {row[1]} of {row[0]} refers to a row of {row[2]} that is not there" for row in references]


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that the content of a file is wrong."""
    return family_of(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def is_orphaned(path: Path) -> bool:
    """Whether there is a WAL without the database that it belongs to: SQLite would delete it."""
    return not size_of(path) and size_of(companion(path, "-wal")) > 0


def replace_damaged(path: Path, reason: str) -> None:
    """Set a damaged database aside, put what can be read of it in its place, and say so in the log.

    Raises:
        PeertaskError: code STORE_FAILED, when it cannot be set aside; it stays where it is.
    """
    try:
        aside = set_aside(path)
    except OSError as error:
        raise refuse(
            f"the SQLite store {path} is damaged ({reason}), and cannot be set aside: {error.strerror}",
            "Move it, and the files whose names begin with its own, to another folder, and start the node again",
        ) from error
    log.error(
        "the store was damaged and is set aside; the node goes on with what could be read of it",
        store=str(path),
        reason=reason,
        set_aside=str(aside),
        tasks=_salvaged(aside, path),
        remedy=_WAY_BACK.format(path=path, aside=aside),
    )


def _salvaged(aside: Path, path: Path) -> int:
    """Return how many tasks were brought over; the new database takes its place when it is complete, or not at all."""
    unfinished = free_name(path.with_name(f"{path.name}.salvaged"))
    try:
        create_private(unfinished)
        tasks = salvage(aside, unfinished)
        unfinished.replace(path)
    except (sqlite3.Error, PeertaskError, OSError) as error:
        log.warning("nothing could be read of the damaged store", store=str(aside), reason=str(error))
        unfinished.unlink(missing_ok=True)
        return 0
    return tasks
