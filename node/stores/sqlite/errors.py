"""What SQLite says, in words: where, why, and what to do next."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from protocol import ErrorCode, PeertaskError

# The low byte of a code of SQLite is its family; the rest says more.
_FAMILY = 0xFF

_REASONS: dict[int, tuple[str, str]] = {
    sqlite3.SQLITE_FULL: ("the disk is full", "Make room on it"),
    sqlite3.SQLITE_BUSY: ("another process keeps it locked", "Stop the other program that uses the file"),
    sqlite3.SQLITE_LOCKED: ("another connection keeps it locked", "Stop the other program that uses the file"),
    sqlite3.SQLITE_READONLY: (
        "it may only be read",
        "Let the user of the node write to the file and its folder, or move the data folder to a disk that is writable",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "the file or the files beside it cannot be opened",
        "Let the user of the node read and write its folder",
    ),
    sqlite3.SQLITE_PERM: ("the system does not permit it", "Let the user of the node read and write the file"),
    sqlite3.SQLITE_IOERR: (
        "the disk does not read or write",
        "Look whether the disk is full, broken or gone; the log of the system says more",
    ),
    sqlite3.SQLITE_CORRUPT: (
        "it is damaged",
        "Start the node again: it sets a damaged file aside, and says how to go on",
    ),
    sqlite3.SQLITE_NOTADB: ("it is not an SQLite database", "Name another file, or move this one away"),
}


def family_of(error: sqlite3.Error) -> int:
    """Return which of SQLite's primary codes an error has; 0 when Python raised it."""
    return getattr(error, "sqlite_errorcode", 0) & _FAMILY


def explain(error: sqlite3.Error, place: str, doing: str) -> PeertaskError:
    """Return an error of SQLite as one that says where and why, and what to do.

    Args:
        error: what SQLite raised.
        place: the path of the file.
        doing: what failed: "opened", "saved to", "read".
    """
    reason, remedy = _REASONS.get(family_of(error), ("", ""))
    why = f"{reason} ({error})" if reason else str(error)
    return PeertaskError(
        f"the SQLite store {place} cannot be {doing}: {why}", code=ErrorCode.STORE_FAILED, remedy=remedy
    )


@contextmanager
def explained(place: str, doing: str) -> Iterator[None]:
    """Turn the errors of SQLite in a block into those that explain themselves."""
    try:
        yield
    except sqlite3.Error as error:
        raise explain(error, place, doing) from error


def refuse(message: str, remedy: str) -> PeertaskError:
    """Return an error for a file that the store does not take."""
    return PeertaskError(message, code=ErrorCode.STORE_FAILED, remedy=remedy)
