"""From an older schema to the newest: all of it or nothing, with a copy of the file before."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from node.stores.sqlite import Migration, planned_migrations
from node.stores.sqlite.migrations import known_migrations, migrate
from node.stores.sqlite.opening import connect, open_connection
from protocol import ErrorCode, PeertaskError

ONE = Migration(1, "words", "CREATE TABLE words (word TEXT);\nINSERT INTO words VALUES ('first; word');\n")
TWO = Migration(
    2,
    "counts",
    "ALTER TABLE words ADD COLUMN count INTEGER;\n"
    "CREATE TRIGGER counted AFTER INSERT ON words\nBEGIN\n"
    "    UPDATE words SET count = 1 WHERE rowid = NEW.rowid;\n    SELECT 1;\nEND;\n",
)
BROKEN = Migration(3, "broken", "CREATE TABLE more (x);\nINSERT INTO nowhere VALUES (1);\n")


def state(path: Path) -> tuple[int, list[str]]:
    """The version of a database, and its words."""
    with closing(sqlite3.connect(path)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        return version, [word for (word,) in connection.execute("SELECT word FROM words")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database of the first version."""
    path = tmp_path / "tasks.db"
    with closing(connect(str(path))) as connection:
        assert migrate(connection, str(path), [ONE]) is None
    return path


def test_a_new_database_gets_every_migration_and_no_backup(tmp_path: Path) -> None:
    """There is nothing to lose in an empty file."""
    # covers COORD-14, COORD-17
    path = tmp_path / "tasks.db"
    with closing(connect(str(path))) as connection:
        assert migrate(connection, str(path), [ONE, TWO]) is None
        connection.execute("INSERT INTO words (word) VALUES ('second')")
        assert connection.execute("SELECT * FROM words").fetchall() == [("first; word", None), ("second", 1)]
    assert [file.name for file in tmp_path.iterdir()] == ["tasks.db"]


def test_an_older_database_is_copied_and_brought_to_the_newest_version(path: Path) -> None:
    """The copy has what the file had, readable for its owner only; a second time there is nothing to do."""
    # covers COORD-17
    with closing(connect(str(path))) as connection:
        connection.execute("INSERT INTO words VALUES ('kept')")
        backup = migrate(connection, str(path), [ONE, TWO])
        assert migrate(connection, str(path), [ONE, TWO]) is None
    assert backup == path.with_name("tasks.db.before-0002")
    assert state(path) == (2, ["first; word", "kept"])
    assert state(backup) == (1, ["first; word", "kept"])
    assert backup.stat().st_mode & 0o777 == 0o600


def test_a_backup_never_overwrites_another(path: Path) -> None:
    """The next free number is taken, whatever the other file is."""
    path.with_name("tasks.db.before-0002").write_text("precious")
    with closing(connect(str(path))) as connection:
        assert migrate(connection, str(path), [ONE, TWO]) == path.with_name("tasks.db.before-0002.2")
    assert path.with_name("tasks.db.before-0002").read_text() == "precious"


def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    """Of several migrations all are applied or none, and the next start may try again."""
    # covers COORD-17, COORD-57
    with closing(connect(str(path))) as connection:
        with pytest.raises(sqlite3.OperationalError, match="nowhere"):
            migrate(connection, str(path), [ONE, TWO, BROKEN])
        assert not connection.in_transaction
        assert connection.execute("SELECT name FROM sqlite_schema WHERE name IN ('more', 'counted')").fetchall() == []
    assert state(path) == (1, ["first; word"])


def test_a_migration_that_ends_within_a_statement_is_refused(path: Path) -> None:
    """A file that was cut off is no schema."""
    with closing(connect(str(path))) as connection, pytest.raises(ValueError, match="0002 ends within a statement"):
        migrate(connection, str(path), [ONE, Migration(2, "cut", "CREATE TABLE more (")])
    assert state(path)[0] == 1


def test_a_database_is_not_migrated_without_a_copy(path: Path) -> None:
    """Where no copy can be made, the file stays as it is, and nothing half-made stays beside it."""
    with closing(connect(str(path))) as connection:
        place = path.parent / "gone" / "tasks.db"
        with pytest.raises(PeertaskError, match="is not migrated, because it cannot be copied") as refused:
            migrate(connection, str(place), [ONE, TWO])
    assert refused.value.code is ErrorCode.STORE_FAILED
    assert refused.value.remedy
    assert state(path)[0] == 1


def test_a_database_that_is_newer_than_the_program_is_refused_in_words(tmp_path: Path) -> None:
    """An older program does not touch the file of a newer one, and says what to do."""
    # covers COORD-17
    path = tmp_path / "tasks.db"
    with closing(open_connection(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = path.read_bytes()
    for act in (open_connection, planned_migrations):
        with pytest.raises(PeertaskError, match="has version 99, and this version of peertask knows") as refused:
            act(path)
        assert refused.value.code is ErrorCode.STORE_FAILED
        assert "Use the version of peertask that wrote it" in refused.value.remedy
    assert path.read_bytes() == before


def test_a_dry_run_tells_what_would_be_applied_and_changes_nothing(path: Path) -> None:
    """Number, name and SQL of what is missing, before anything is done."""
    # covers COORD-17
    before = path.read_bytes()
    assert planned_migrations(path, [ONE, TWO]) == (TWO,)
    assert planned_migrations(path, [ONE]) == ()
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["tasks.db"]


def test_a_dry_run_over_no_file_tells_everything(tmp_path: Path) -> None:
    """A file that is not there would get all migrations; it is not made."""
    path = tmp_path / "tasks.db"
    assert planned_migrations(path) == known_migrations()
    path.touch()
    assert planned_migrations(path, [ONE]) == (ONE,)
    assert path.stat().st_size == 0


def test_a_dry_run_over_something_else_says_so(tmp_path: Path) -> None:
    """A file that is no database is told as that."""
    path = tmp_path / "tasks.db"
    path.write_text("no database, but long enough to have a header" * 10)
    with pytest.raises(PeertaskError, match="cannot be read: it is not an SQLite database"):
        planned_migrations(path)


def test_the_migrations_of_the_program_are_numbered_without_a_gap(tmp_path: Path) -> None:
    """A file that is missing would leave databases between two versions."""
    # covers COORD-17
    assert [migration.number for migration in known_migrations()] == list(range(1, len(known_migrations()) + 1))
    (tmp_path / "0001_first.sql").write_text("SELECT 1;")
    (tmp_path / "0003_third.sql").write_text("SELECT 1;")
    (tmp_path / "notes.txt").write_text("not a migration")
    with pytest.raises(ValueError, match="gap"):
        known_migrations(tmp_path)
    (tmp_path / "0002_second.sql").write_text("SELECT 1;")
    assert [migration.name for migration in known_migrations(tmp_path)] == ["first", "second", "third"]
