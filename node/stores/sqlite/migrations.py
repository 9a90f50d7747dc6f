"""From any older schema to the newest: numbered SQL files, of which a database has the first `PRAGMA user_version`.

All that are missing are applied in one transaction, so a file has either the schema that it had or the newest.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

from node.stores.sqlite.errors import explained, refuse
from node.stores.sqlite.files import create_private, free_name

SCHEMA: Final[Traversable] = files("node.stores.sqlite") / "schema"
_FILE_NAME: Final = re.compile(r"(\d{4})_(\w+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """A step from one schema to the next.

    Attributes:
        number: the `user_version` that it leads to.
        name: what it is about.
        sql: what it executes.
    """

    number: int
    name: str
    sql: str

    def statements(self) -> Iterator[str]:
        """Yield the statements one by one: `executescript` would commit before the first.

        Raises:
            ValueError: the last one is not finished.
        """
        statement = ""
        for line in self.sql.splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):
                yield statement
                statement = ""
        if statement.strip():
            raise ValueError(f"migration {self.number:04} ends within a statement")


def known_migrations(schema: Traversable = SCHEMA) -> tuple[Migration, ...]:
    """Return the migrations in their order.

    Raises:
        ValueError: a number is missing.
    """
    named = [(match, entry) for entry in schema.iterdir() if (match := _FILE_NAME.fullmatch(entry.name))]
    migrations = sorted(
        (Migration(int(match[1]), match[2], entry.read_text("utf-8")) for match, entry in named),
        key=lambda migration: migration.number,
    )
    if [migration.number for migration in migrations] != list(range(1, len(migrations) + 1)):
        raise ValueError("the numbers of the migrations have a gap")
    return tuple(migrations)


def planned_migrations(path: Path, migrations: Sequence[Migration] | None = None) -> tuple[Migration, ...]:
    """Return what opening a file would apply to it, without touching it; a file that is not there would get all.

    Raises:
        PeertaskError: code STORE_FAILED, when the file cannot be read or is newer than this program.
    """
    known = known_migrations() if migrations is None else tuple(migrations)
    if not path.exists() or not path.stat().st_size:
        return known
    with (
        explained(str(path), "read"),
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection,
    ):
        return missing_migrations(connection, str(path), known)


def missing_migrations(
    connection: sqlite3.Connection, place: str, migrations: Sequence[Migration]
) -> tuple[Migration, ...]:
    """Return the migrations that a database has not had.

    Raises:
        PeertaskError: code STORE_FAILED, when it has had more than there are.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    check_version(version, place, len(migrations))
    return tuple(migrations[version:])


def check_version(version: int, place: str, newest: int | None = None) -> None:
    """Refuse a version that this program does not know; by default what it knows are its own migrations.

    Raises:
        PeertaskError: code STORE_FAILED.
    """
    newest = len(known_migrations()) if newest is None else newest
    if version > newest:
        raise refuse(
            f"the SQLite store {place} has version {version}, and this version of peertask knows no newer one than"
            f" {newest}",
            "Use the version of peertask that wrote it, or go back to the backup that it made beside the file",
        )


def migrate(connection: sqlite3.Connection, place: str, migrations: Sequence[Migration] | None = None) -> Path | None:
    """Bring a database to the newest schema; one that has an older one is copied before.

    Args:
        connection: in autocommit mode, with no transaction open.
        place: the path of the file, for messages and for the copy beside it.
        migrations: all that there are, by default those of this program.

    Returns:
        The backup; None when none was needed.

    Raises:
        PeertaskError: code STORE_FAILED; the database is as it was.
    """
    known = known_migrations() if migrations is None else migrations
    missing = missing_migrations(connection, place, known)
    if not missing:
        return None
    backup = back_up(connection, Path(place), missing[0].number) if missing[0].number > 1 else None
    _apply(connection, place, known)
    return backup


def back_up(connection: sqlite3.Connection, path: Path, number: int) -> Path:
    """Copy a database to a new file beside it, named after the migration that is about to be applied.

    Raises:
        PeertaskError: code STORE_FAILED; says why there is no copy, and nothing is left of it.
    """
    backup = free_name(path.with_name(f"{path.name}.before-{number:04}"))
    try:
        create_private(backup)
        with closing(sqlite3.connect(backup)) as copy:
            connection.backup(copy)
    except (sqlite3.Error, OSError) as error:
        backup.unlink(missing_ok=True)
        raise refuse(
            f"the SQLite store {path} is not migrated, because it cannot be copied to {backup}: {error}",
            "Make room for a copy of the file beside it",
        ) from error
    return backup


def _apply(connection: sqlite3.Connection, place: str, migrations: Sequence[Migration]) -> None:
    """Apply what is missing now: of two processes that start at once, the second finds nothing to do."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for migration in missing_migrations(connection, place, migrations):
            for statement in migration.statements():
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {migration.number}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
