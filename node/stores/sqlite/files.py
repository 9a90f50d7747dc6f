"""The files of a database: made for their owner only, and moved without ever overwriting another."""

from __future__ import annotations

import os
from itertools import chain, count
from pathlib import Path
from typing import Final

# "peer" in ASCII, in the header of every file: what `file` and other programs tell our databases by.
APPLICATION_ID: Final = 0x70656572
HEADER_BYTES: Final = 100
_VERSION_AT: Final = slice(60, 64)
_OWNER_ONLY: Final = 0o600
# SQLite names them so; the database is not whole without the first.
COMPANIONS: Final = ("-wal", "-shm")


def create_private(path: Path) -> None:
    """Make an empty file that only its owner may read and write; SQLite gives the files beside it the same mode.

    Raises:
        FileExistsError: there is one.
    """
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _OWNER_ONLY))


def companion(path: Path, suffix: str) -> Path:
    """Return the path of a file that SQLite keeps beside a database."""
    return path.with_name(path.name + suffix)


def size_of(path: Path) -> int:
    """Return the size of a file in bytes; 0 when it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def version_of(path: Path) -> int:
    """Return the `user_version` in the header of a database; 0 when there is none."""
    with path.open("rb") as file:
        return int.from_bytes(file.read(HEADER_BYTES)[_VERSION_AT], "big")


def free_name(path: Path) -> Path:
    """Return a path, with the next free number after it when it, or a file beside it, is taken."""
    candidates = chain([path], (path.with_name(f"{path.name}.{number}") for number in count(2)))
    return next(
        candidate
        for candidate in candidates
        if not any(os.path.lexists(companion(candidate, suffix)) for suffix in ("", *COMPANIONS))
    )


def set_aside(path: Path, label: str = "damaged") -> Path:
    """Give a database and the files beside it another name, in the same folder and with everything in them.

    The new names are made before the old ones go, so a crash in between leaves too many names and loses nothing; and a
    name that is taken is never used.

    Args:
        path: the database, which nobody has open.
        label: what to add to the name; a number follows when that is taken.

    Returns:
        The new path of the database.

    Raises:
        OSError: the folder is read-only, or its file system has no hard links; the old names are all there.
    """
    aside = free_name(path.with_name(f"{path.name}.{label}"))
    there = [suffix for suffix in ("", *COMPANIONS) if companion(path, suffix).exists()]
    for suffix in there:
        os.link(companion(path, suffix), companion(aside, suffix))
    for suffix in there:
        companion(path, suffix).unlink()
    return aside
